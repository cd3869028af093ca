// SPDX-License-Identifier: Apache-2.0
// Operands as tiles take them: bfloat16, of which float16 needs two. Its 11 significant bits are the sum of what rounding
// to 8 keeps and what it takes.
#pragma once

#include "amx/block.inl"

namespace {

template <class T>
constexpr int kParts = std::is_same_v<T, Half> ? 2 : 1;

// 32 floats as two bfloat16 each: rounded, and what rounding took, rounded.
inline void split(Vec first, Vec second, __m512i* parts) {
  const auto rounded = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(second.v, first.v));
  const BFloat16* bits = nullptr;  // names the overload
  const Vec first_left = first - Vec{widen(bits, _mm512_castsi512_si256(rounded))};
  const Vec second_left = second - Vec{widen(bits, _mm512_extracti64x4_epi64(rounded, 1))};
  parts[0] = rounded;
  parts[1] = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(second_left.v, first_left.v));
}

// Where 32 bfloat16 are infinite or NaN: all bits of the exponent are set.
inline __mmask32 no_numbers(__m512i values) {
  const __m512i exponent = _mm512_set1_epi16(0x7f80);
  return _mm512_cmpeq_epi16_mask(_mm512_and_si512(values, exponent), exponent);
}

// The parts of up to 32 elements; those behind them are zeros. Rounding takes nothing from what is no number.
inline void load_parts(const BFloat16* p, int64_t count, __m512i* parts) { parts[0] = load_step(p, count); }
inline void load_parts(const Half* p, int64_t count, __m512i* parts) {
  const __m512i elements = load_step(p, count);
  split({widen(p, _mm512_castsi512_si256(elements))}, {widen(p, _mm512_extracti64x4_epi64(elements, 1))}, parts);
  parts[1] = _mm512_maskz_mov_epi16(~no_numbers(parts[0]), parts[1]);
}

// The largest magnitude of many bfloat16, which shows whether all are numbers.
struct Highest {
  __m512i bits = _mm512_setzero_si512();

  void take(__m512i values) {
    bits = _mm512_max_epu16(bits, _mm512_and_si512(values, _mm512_set1_epi16(0x7fff)));
  }
  bool is_number() const { return no_numbers(bits) == 0; }
};

// Up to 32 rows of head_dim elements -> out[row][part][width]; a bit for each row that holds an infinity or NaN.
template <class T>
inline uint32_t split_rows(const T* const* rows, int count, int64_t head_dim, int64_t width, BFloat16* out) {
  uint32_t others = 0;
  for (int row = 0; row < count; ++row, out += kParts<T> * width) {
    Highest highest;
    for (int64_t d = 0; d < width; d += kStepInner<BFloat16>) {
      __m512i parts[2];
      load_parts(rows[row] + d, head_dim - d, parts);
      highest.take(parts[0]);
      for (int part = 0; part < kParts<T>; ++part) _mm512_storeu_si512(out + part * width + d, parts[part]);
    }
    if (!highest.is_number()) others |= uint32_t{1} << row;
  }
  return others;
}

// Strip `task` of x: [part][K in steps].
template <class T>
void pack_parts(const char* x, int64_t ldx, int64_t rows, int64_t inner, char* packed, int64_t task) {
  const int64_t first = task * kStripRows, bytes = strip_bytes<BFloat16>(inner);
  const int64_t count = rows - first < kStripRows ? rows - first : kStripRows;
  char* strip = packed + task * kParts<T> * bytes;
  for (int part = 0; part < kParts<T>; ++part, strip += bytes) {
    pack_strip<BFloat16>(inner, strip, [&](int row, int64_t k) {
      __m512i parts[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
      if (row < count) load_parts(at<T>(x, (first + row) * ldx + k), inner - k, parts);
      return parts[part];
    });
  }
}

template <class T>
size_t parts_bytes(int64_t rows, int64_t inner) {
  return kParts<T> * pack_bytes<BFloat16>(rows, inner);
}

// Packed rows: bytes from one of two strips to the other, and from part to part.
struct PackedParts {
  const char* x;
  int64_t strip, part;
};

// Tiles 0 to 3 += 32 rows of w, of whole steps, . all parts of kStrips strips of packed rows, as sums[n][m].
template <class T, int kStrips>
inline void add_products(const PackedParts& packed, const BFloat16* w, int64_t ldw, int64_t inner) {
  const int64_t row_bytes = ldw * static_cast<int64_t>(sizeof(BFloat16));
  const char* step = packed.x;
  for (int64_t k = 0; k < inner; k += kStepInner<BFloat16>, step += kStepBytes) {
    tile_load<4>(w + k, row_bytes);
    tile_load<5>(w + kTileRowsAmx * ldw + k, row_bytes);
    const char* x = step;
    for (int part = 0; part < kParts<T>; ++part, x += packed.part) {
      tile_load<6>(x, kLaneBytes);
      tile_dot_bf16<0, 4, 6>();
      tile_dot_bf16<1, 5, 6>();
      if constexpr (kStrips == 2) {
        tile_load<7>(x + packed.strip, kLaneBytes);
        tile_dot_bf16<2, 4, 7>();
        tile_dot_bf16<3, 5, 7>();
      }
    }
  }
}

template <class T>
inline void add_products(bool two_strips, const PackedParts& packed, const BFloat16* w, int64_t ldw, int64_t inner) {
  two_strips ? add_products<T, 2>(packed, w, ldw, inner) : add_products<T, 1>(packed, w, ldw, inner);
}

inline void zero_sums() {
  tile_zero<0>();
  tile_zero<1>();
  tile_zero<2>();
  tile_zero<3>();
}

}  // namespace
