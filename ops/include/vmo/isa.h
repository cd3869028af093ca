// SPDX-License-Identifier: Apache-2.0
// Choice of the instruction set at run time.
#pragma once

#include "vmo/error.h"
#include "vmo/kernel_table.h"

namespace vmo {

// Rising order; a CPU that has a level has all lower ones.
enum class Isa { kGeneric, kAvx2, kAvx512, kAvx512Bf16, kAmx, kCount };

const char* isa_name(Isa isa);
// Compiled in, offered by the CPU and enabled by the operating system.
bool isa_supported(Isa isa);
// Name -> level; false for an unknown name.
bool parse_isa(const char* name, Isa* out);

// Kernels in force (VLLM_MS_CPU_ISA, else the highest supported level), or null with a recorded error when
// VLLM_MS_CPU_ISA names an unknown or unsupported level.
const KernelTable* active_kernels(const char* op);
// Forces a level; unknown or unsupported names fail and change nothing.
Status set_isa(const char* name);
const char* active_isa_name();

// What reads compressed weights beside a table: with AVX-512 VBMI2, with AVX2, or portable. Not every CPU of an AVX-512 level has
// VBMI2, so it is no level.
const SparseKernels& sparse_kernels(const KernelTable& table);
// Does without VBMI2 (tests).
void set_vbmi2(bool on);

// Asks the kernel once per process for AMX tile data; true when granted (always true in the emulated build).
bool request_amx();

}  // namespace vmo
