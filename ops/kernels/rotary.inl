// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding (Su et al. 2021): y = x * cos + rotate(x) * sin with full-width cos and sin rows.
#pragma once

namespace {

// rotate(x) = (-x[h:], x[:h]), h = half the rotary width. x and y may be the same memory.
template <class T, class Angle>
inline void rotate_half(const T* x, const Angle* cos, const Angle* sin, int64_t half, T* y) {
  for (int64_t i = 0; i < half; i += Vec::kLanes) {
    const int64_t n = half - i;
    const Vec low = load_some(x + i, n), high = load_some(x + half + i, n);
    const Vec turned_low = low * load_some(cos + i, n) - high * load_some(sin + i, n);
    const Vec turned_high = high * load_some(cos + half + i, n) + low * load_some(sin + half + i, n);
    store_some(turned_low, y + i, n);
    store_some(turned_high, y + half + i, n);
  }
}

// rotate(x) = (-x1, x0, -x3, x2, ...).
template <class T, class Angle>
inline void rotate_pairs(const T* x, const Angle* cos, const Angle* sin, int64_t width, T* y) {
  for (int64_t i = 0; i < width; i += Vec::kLanes) {
    const int64_t n = width - i;
    const Vec v = load_some(x + i, n);
    const Vec rotated = negate_even(swap_pairs(v));
    store_some(v * load_some(cos + i, n) + rotated * load_some(sin + i, n), y + i, n);
  }
}

template <class T, class Angle>
inline void rotate_token(const RotaryArgs& args, const T* x, const Angle* cos, const Angle* sin, T* y) {
  for (int64_t head = 0; head < args.heads; ++head, x += args.head_dim, y += args.head_dim) {
    if (args.interleaved) {
      rotate_pairs(x, cos, sin, args.rotary_dim, y);
    } else {
      rotate_half(x, cos, sin, args.rotary_dim / 2, y);
    }
    const int64_t rest = args.head_dim - args.rotary_dim;
    if (rest > 0 && x != y) {
      std::memcpy(y + args.rotary_dim, x + args.rotary_dim, static_cast<size_t>(rest) * sizeof(T));
    }
  }
}

template <class T>
void rotary(const RotaryArgs& args, int64_t token0, int64_t token1) {
  for (int64_t token = token0; token < token1; ++token) {
    const T* x = at<T>(args.x, token * args.ldx);
    T* y = at<T>(args.y, token * args.ldy);
    const int64_t c = token * args.ldcos, s = token * args.ldsin;
    if (args.cos_is_float) {
      rotate_token(args, x, at<float>(args.cos, c), at<float>(args.sin, s), y);
    } else {
      rotate_token(args, x, at<T>(args.cos, c), at<T>(args.sin, s), y);
    }
  }
}

}  // namespace
