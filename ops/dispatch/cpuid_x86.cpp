// SPDX-License-Identifier: Apache-2.0
// cpuid and XCR0 (Intel SDM vol. 1 ch. 13-15, 18; vol. 2 CPUID): an instruction set counts only when the
// operating system saves its registers.
#include "cpuid_x86.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace vmo {
namespace {

struct Registers {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(unsigned leaf, unsigned subleaf) {
  Registers r;
  if (__get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx) == 0) return Registers{};
  return r;
}

bool bit(unsigned value, int position) { return ((value >> position) & 1u) != 0; }

// State components the operating system saves; 0 without OSXSAVE.
uint64_t enabled_state(const Registers& leaf1) {
  if (!bit(leaf1.ecx, 27)) return 0;
  uint32_t low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

bool has_avx2(const Registers& leaf1, const Registers& leaf7) {
  return bit(leaf1.ecx, 28) && bit(leaf1.ecx, 12) && bit(leaf1.ecx, 29) && bit(leaf7.ebx, 5);
}

bool has_avx512(const Registers& leaf7) {
  return bit(leaf7.ebx, 16) && bit(leaf7.ebx, 17) && bit(leaf7.ebx, 30) && bit(leaf7.ebx, 31);
}

bool has_avx512_bf16(const Registers& leaf7) { return bit(leaf7.ecx, 11) && bit(cpuid(7, 1).eax, 5); }

bool has_amx(const Registers& leaf7) { return bit(leaf7.edx, 22) && bit(leaf7.edx, 24) && bit(leaf7.edx, 25); }

}  // namespace

Isa detect_x86_level() {
  constexpr uint64_t kAvxState = 0x6, kAvx512State = 0xe6, kTileState = 0x60000;
  const Registers leaf1 = cpuid(1, 0);
  const Registers leaf7 = cpuid(7, 0);
  const uint64_t state = enabled_state(leaf1);
  if ((state & kAvxState) != kAvxState || !has_avx2(leaf1, leaf7)) return Isa::kGeneric;
  if ((state & kAvx512State) != kAvx512State || !has_avx512(leaf7)) return Isa::kAvx2;
  if (!has_avx512_bf16(leaf7)) return Isa::kAvx512;
  if ((state & kTileState) != kTileState || !has_amx(leaf7)) return Isa::kAvx512Bf16;
  return Isa::kAmx;
}

bool detect_x86_vbmi2() {
  const Registers leaf7 = cpuid(7, 0);
  return detect_x86_level() >= Isa::kAvx512 && bit(leaf7.ecx, 6) && bit(leaf7.ecx, 11) && bit(leaf7.ecx, 14);
}

#if !defined(VMO_PORTABLE_ONLY)
bool request_amx() {
#if defined(VMO_EMULATE_AMX)
  return true;
#else
  // Linux grants tile data per process on request (Documentation/arch/x86/xstate.rst); threads inherit it.
  constexpr long kArchRequestPermission = 0x1023, kTileData = 18;
  static const bool granted = syscall(SYS_arch_prctl, kArchRequestPermission, kTileData) == 0;
  return granted;
#endif
}
#endif

}  // namespace vmo
