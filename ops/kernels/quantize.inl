// SPDX-License-Identifier: Apache-2.0
// int8 codes of activations; equal to vllm_mindspore/quantization/primitives.py to the last bit.
#pragma once

namespace {

// Codes of one row: round(x / scale[k] + offset[k]), or with x * scale[k].
template <bool kMultiply, class T>
inline void quantize_row(const T* x, const float* scale, const float* offset, int64_t cols, int8_t* codes) {
  for (int64_t k = 0; k < cols; k += Vec::kLanes) {
    const int64_t rest = cols - k;
    const Vec v = load_some(x + k, rest), s = load_some(scale + k, rest);
    const Vec scaled = kMultiply ? v * s : v / s;
    const Vec shifted = scaled + load_some(offset + k, rest);
    store_codes(shifted, codes + k, rest < Vec::kLanes ? static_cast<int>(rest) : Vec::kLanes);
  }
}

template <class T>
inline Vec smoothed(const T* x, const float* smooth, int64_t k, int64_t rest) {
  const Vec v = load_some(x + k, rest);
  return smooth == nullptr ? v : v * load_some(smooth + k, rest);
}

// Codes of one row by its largest magnitude; the scale, which is NaN where the row holds one.
template <class T>
inline float quantize_token(const T* x, const float* smooth, int64_t cols, int8_t* codes) {
  Vec largest = Vec::zero(), differences = Vec::zero();  // v - v is zero unless v is NaN or infinite
  for (int64_t k = 0; k < cols; k += Vec::kLanes) {
    const Vec v = smoothed(x, smooth, k, cols - k);
    largest = max(largest, abs(v));
    differences = differences + (v - v);
  }
  const float scale = reduce_max(largest) / 127.0f;
  const bool finite = reduce_add(differences) == 0.0f;
  const Vec divisor = Vec::set1(scale == 0.0f ? 1.0f : scale);
  for (int64_t k = 0; k < cols; k += Vec::kLanes) {
    const int64_t rest = cols - k;
    const Vec scaled = smoothed(x, smooth, k, rest) / divisor;
    store_codes(finite ? scaled : Vec::zero(), codes + k, rest < Vec::kLanes ? static_cast<int>(rest) : Vec::kLanes);
  }
  return finite ? scale : std::nanf("");
}

template <class T>
void quantize(const QuantizeArgs& args, int64_t row0, int64_t row1) {
  for (int64_t row = row0; row < row1; ++row) {
    const T* x = at<T>(args.x, row * args.ldx);
    int8_t* codes = args.codes + row * args.cols;
    if (args.token_scale != nullptr) {
      vmo::store_unaligned(args.token_scale + row, quantize_token(x, args.scale, args.cols, codes));
    } else if (args.multiply) {
      quantize_row<true>(x, args.scale, args.offset, args.cols, codes);
    } else {
      quantize_row<false>(x, args.scale, args.offset, args.cols, codes);
    }
  }
}

}  // namespace
