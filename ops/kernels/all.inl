// SPDX-License-Identifier: Apache-2.0
// All kernels, for one instruction set: include after that folder's vec.h and dot.h.
#pragma once

#include <cmath>
#include <cstring>
#include <type_traits>

#include "vmo/kernel_table.h"

namespace {

using vmo::ActivationArgs;
using vmo::AttentionArgs;
using vmo::AttentionTask;
using vmo::ElementKernels;
using vmo::GateUpArgs;
using vmo::Int8LinearArgs;
using vmo::KernelTable;
using vmo::kKeyBlock;
using vmo::kMaxQueryRows;
using vmo::LinearArgs;
using vmo::NormArgs;
using vmo::Packing;
using vmo::QuantizeArgs;
using vmo::RotaryArgs;
using vmo::Tile;
using vmo::WeightOnlyArgs;

}  // namespace

#include "kernels/vec_math.inl"

#include "kernels/dot.inl"

#include "kernels/accumulate.inl"
#include "kernels/activation.inl"
#include "kernels/attention.inl"
#include "kernels/matmul.inl"
#include "kernels/int8_matmul.inl"
#include "kernels/norm.inl"
#include "kernels/peak.inl"
#include "kernels/quantize.inl"
#include "kernels/rotary.inl"
#include "kernels/sum.inl"
#include "kernels/weight_only.inl"

#include "kernels/table.inl"
