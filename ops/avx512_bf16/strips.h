// SPDX-License-Identifier: Apache-2.0
// The layout of packed rows: strips of 16 rows, [rows / 16][K in steps of 64 bytes][16 lanes of 4 bytes][16 rows], padded
// with zeros. A step is one AMX tile.
#pragma once

#include <cstdint>

namespace {

constexpr int kStripRows = 16;
constexpr int64_t kLaneBytes = 64;    // 4 bytes of each row of a strip
constexpr int64_t kStepBytes = 1024;  // one step of a strip: 64 bytes of each row

}  // namespace
