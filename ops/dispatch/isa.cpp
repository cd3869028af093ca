// SPDX-License-Identifier: Apache-2.0
// Detection and choice of the instruction set. Compiled with baseline flags.
#include "vmo/isa.h"

#include <atomic>
#include <cstdlib>
#include <cstring>

#include "tables.h"
#include "vmo/thread_pool.h"

#if defined(__x86_64__) && !defined(VMO_PORTABLE_ONLY)
#include "cpuid_x86.h"
#endif

namespace vmo {
namespace {

constexpr int kIsaCount = static_cast<int>(Isa::kCount);
constexpr const char* kNames[kIsaCount] = {"generic", "avx2", "avx512", "avx512_bf16", "amx"};
constexpr const char* kEnvironmentName = "VLLM_MS_CPU_ISA";

const KernelTable* table_of(Isa isa) {
  switch (isa) {
    case Isa::kGeneric: return generic_kernels();
#if defined(__x86_64__) && !defined(VMO_PORTABLE_ONLY)
    case Isa::kAvx2: return avx2_kernels();
    case Isa::kAvx512: return avx512_kernels();
    case Isa::kAvx512Bf16: return avx512_bf16_kernels();
    case Isa::kAmx: return amx_kernels();
#endif
    default: return nullptr;
  }
}

Isa best_isa() {
  for (int i = kIsaCount - 1; i > 0; --i) {
    if (isa_supported(static_cast<Isa>(i))) return static_cast<Isa>(i);
  }
  return Isa::kGeneric;
}

Status check(const char* op, const char* source, const char* name, Isa* out) {
  if (!parse_isa(name, out)) {
    return fail(op, "%s names the unknown instruction set \"%s\"; expected generic, avx2, avx512, avx512_bf16 or amx",
                source, name);
  }
  if (!isa_supported(*out)) {
    return fail(op, "%s asks for instruction set \"%s\", which this CPU or build does not have; the best here is \"%s\"",
                source, name, isa_name(best_isa()));
  }
  return kOk;
}

std::atomic<const KernelTable*> g_active{nullptr};
std::atomic<bool> g_vbmi2{true};

}  // namespace

const char* isa_name(Isa isa) { return kNames[static_cast<int>(isa)]; }

bool parse_isa(const char* name, Isa* out) {
  for (int i = 0; name != nullptr && i < kIsaCount; ++i) {
    if (std::strcmp(kNames[i], name) != 0) continue;
    *out = static_cast<Isa>(i);
    return true;
  }
  return false;
}

bool isa_supported(Isa isa) {
  if (table_of(isa) == nullptr) return false;
#if defined(__x86_64__) && !defined(VMO_PORTABLE_ONLY)
  static const Isa cpu_level = detect_x86_level();
#if defined(VMO_EMULATE_AMX)
  // The emulated build needs no tile unit, only what the rest of the amx folder uses.
  if (isa == Isa::kAmx) return cpu_level >= Isa::kAvx512Bf16;
#endif
  if (isa > cpu_level) return false;
  return isa != Isa::kAmx || request_amx();
#else
  return true;
#endif
}

const KernelTable* active_kernels(const char* op) {
  const KernelTable* active = g_active.load(std::memory_order_acquire);
  if (active != nullptr) return active;
  if (check_thread_setting(op) != kOk) return nullptr;
  const char* forced = std::getenv(kEnvironmentName);
  Isa isa = Isa::kGeneric;
  if (forced != nullptr && forced[0] != '\0') {
    if (check(op, kEnvironmentName, forced, &isa) != kOk) return nullptr;
  } else {
    isa = best_isa();
  }
  active = table_of(isa);
  g_active.store(active, std::memory_order_release);
  return active;
}

Status set_isa(const char* name) {
  Isa isa = Isa::kGeneric;
  if (check("vmo_set_isa", "the argument", name == nullptr ? "" : name, &isa) != kOk) return kError;
  g_active.store(table_of(isa), std::memory_order_release);
  return kOk;
}

const char* active_isa_name() {
  const KernelTable* active = active_kernels("vmo_isa_name");
  return active == nullptr ? "" : active->name;
}

#if defined(__x86_64__) && !defined(VMO_PORTABLE_ONLY)
const SparseKernels& sparse_kernels(const KernelTable& table) {
  static const bool available = detect_x86_vbmi2();
  if (&table == generic_kernels()) return *generic_sparse();
  const bool vbmi2 = available && &table != avx2_kernels() && g_vbmi2.load(std::memory_order_relaxed);
  if (!vbmi2) return *avx2_sparse();
  return &table == amx_kernels() ? *amx_sparse() : *avx512_vbmi2_sparse();
}
#else
const SparseKernels& sparse_kernels(const KernelTable&) { return *generic_sparse(); }
#endif

void set_vbmi2(bool on) { g_vbmi2 = on; }

#if !defined(__x86_64__) || defined(VMO_PORTABLE_ONLY)
bool request_amx() { return false; }
#endif

}  // namespace vmo
