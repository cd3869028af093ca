// SPDX-License-Identifier: Apache-2.0
// Linear layers on int8 codes and weights: exact sums, then scales, rounding and the bias.
#pragma once

namespace {

// One row of a tile: (sums + quant_bias) * scale, in this order with the row's own scale behind it.
inline void dequantize_row(const int32_t* sums, const int32_t* quant_bias, const float* scale, const float* token_scale,
                           int cols, float* values) {
  for (int n = 0; n < cols; ++n) {
    auto sum = static_cast<uint32_t>(sums[n]);
    if (quant_bias != nullptr) sum += static_cast<uint32_t>(vmo::load_unaligned<int32_t>(quant_bias + n));
    values[n] = static_cast<float>(static_cast<int32_t>(sum)) * vmo::load_unaligned<float>(scale + n);
    if (token_scale != nullptr) values[n] *= *token_scale;
  }
}

// Values (rounded to the type, then + bias) -> y.
template <class T>
inline void store_values(const float* values, const T* bias, int cols, T* y) {
  if (bias == nullptr) return store_row(values, bias, cols, y);
  for (int n = 0; n < cols; n += Vec::kLanes) {
    const Vec v = round_to(load_some(values + n, cols - n), y) + load_some(bias + n, cols - n);
    store_some(v, y + n, cols - n);
  }
}

template <class T>
inline void store_dequantized(const Int8LinearArgs& args, const Tile& tile, const int32_t* sums) {
  alignas(64) float values[kTileCols];
  const int i = tile.weight;
  int64_t column = tile.n0;
  for (int before = 0; before < i; ++before) column += args.cols[before];
  const int cols = static_cast<int>(tile.n1 - tile.n0);
  const int32_t* quant_bias = args.quant_bias[i] == nullptr ? nullptr : at<int32_t>(args.quant_bias[i], tile.n0);
  const T* bias = args.bias[i] == nullptr ? nullptr : at<T>(args.bias[i], tile.n0);
  for (int64_t m = tile.m0; m < tile.m1; ++m) {
    const float* token_scale = args.token_scale == nullptr ? nullptr : args.token_scale + m;
    dequantize_row(sums + (m - tile.m0) * kTileCols, quant_bias, at<float>(args.scale[i], tile.n0), token_scale, cols,
                   values);
    store_values(values, bias, cols, at<T>(args.y, m * args.ldy + column));
  }
}

template <class T>
void int8_linear(const Int8LinearArgs& args, const Tile& tile) {
  alignas(64) int32_t sums[kTileRows * kTileCols];
  for_parts<kTileRows, kTileCols>(tile, [&](const Tile& part) {
    const bool stream = part.m0 == tile.m0;
    product<int8_t>(args.x, args.ldx, args.w[part.weight], args.ldw[part.weight], args.inner, part, stream, sums);
    store_dequantized<T>(args, part, sums);
  });
}

}  // namespace
