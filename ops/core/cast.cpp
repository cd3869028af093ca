// SPDX-License-Identifier: Apache-2.0
// Conversion between all element types.
#include <cmath>
#include <complex>
#include <cstdint>
#include <type_traits>

#include "check.h"
#include "row_tasks.h"
#include "vmo/core.h"
#include "vmo/half.h"

namespace vmo {
namespace {

struct Bool {
  uint8_t byte;
};

template <class T>
struct Tag {
  using Type = T;
};

// Calls body(Tag<T>) for the C++ type of a dtype; false for an invalid dtype.
template <class Body>
bool with_type(DType dtype, Body body) {
  switch (dtype) {
    case DType::kFloat32: body(Tag<float>{}); return true;
    case DType::kFloat16: body(Tag<Half>{}); return true;
    case DType::kBFloat16: body(Tag<BFloat16>{}); return true;
    case DType::kFloat64: body(Tag<double>{}); return true;
    case DType::kBool: body(Tag<Bool>{}); return true;
    case DType::kInt8: body(Tag<int8_t>{}); return true;
    case DType::kUInt8: body(Tag<uint8_t>{}); return true;
    case DType::kInt16: body(Tag<int16_t>{}); return true;
    case DType::kUInt16: body(Tag<uint16_t>{}); return true;
    case DType::kInt32: body(Tag<int32_t>{}); return true;
    case DType::kUInt32: body(Tag<uint32_t>{}); return true;
    case DType::kInt64: body(Tag<int64_t>{}); return true;
    case DType::kUInt64: body(Tag<uint64_t>{}); return true;
    case DType::kComplex64: body(Tag<std::complex<float>>{}); return true;
    case DType::kComplex128: body(Tag<std::complex<double>>{}); return true;
    case DType::kInvalid: break;
  }
  return false;
}

template <class T>
constexpr bool kIsComplex = std::is_same_v<T, std::complex<float>> || std::is_same_v<T, std::complex<double>>;

// The arithmetic value of a stored element.
template <class T>
auto value_of(T x) {
  if constexpr (std::is_same_v<T, Half> || std::is_same_v<T, BFloat16>) {
    return to_float(x);
  } else if constexpr (std::is_same_v<T, Bool>) {
    return static_cast<uint8_t>(x.byte != 0);
  } else {
    return x;
  }
}

// Truncates towards zero. int32: INT32_MIN for NaN and what does not fit, as MindSpore's own kernel gives. Others: into
// 64 bits (saturating, NaN -> 0), then wrapped to the target width.
template <class To, class Value>
To float_to_integer(Value x) {
  const auto wide = static_cast<double>(x);
  if constexpr (std::is_same_v<To, int32_t>) {
    return wide > -2147483649.0 && wide < 2147483648.0 ? static_cast<int32_t>(wide) : INT32_MIN;
  }
  if (std::isnan(wide)) return 0;
  if constexpr (std::is_same_v<To, uint64_t>) {
    if (wide >= 18446744073709551616.0) return UINT64_MAX;
    if (wide >= 9223372036854775808.0) return static_cast<uint64_t>(wide);
  }
  if (wide >= 9223372036854775808.0) return static_cast<To>(INT64_MAX);
  if (wide < -9223372036854775808.0) return static_cast<To>(INT64_MIN);
  return static_cast<To>(static_cast<int64_t>(wide));
}

template <class To, class Value>
To convert(Value x) {
  if constexpr (kIsComplex<To>) {
    using Part = typename To::value_type;
    if constexpr (kIsComplex<Value>) {
      return To(static_cast<Part>(x.real()), static_cast<Part>(x.imag()));
    } else {
      return To(static_cast<Part>(x), Part{0});
    }
  } else if constexpr (std::is_same_v<To, Bool>) {
    return Bool{static_cast<uint8_t>(x != Value{0})};
  } else if constexpr (kIsComplex<Value>) {
    return convert<To>(x.real());
  } else if constexpr (std::is_same_v<To, Half>) {
    return to_half(static_cast<float>(x));
  } else if constexpr (std::is_same_v<To, BFloat16>) {
    return to_bfloat16(static_cast<float>(x));
  } else if constexpr (std::is_floating_point_v<Value> && std::is_integral_v<To>) {
    return float_to_integer<To>(x);
  } else {
    return static_cast<To>(x);
  }
}

template <class From, class To>
void convert_range(const char* source, char* target, int64_t begin, int64_t end) {
  const auto* from = reinterpret_cast<const From*>(source);
  auto* to = reinterpret_cast<To*>(target);
  for (int64_t i = begin; i < end; ++i) {
    store_unaligned(to + i, convert<To>(value_of(load_unaligned<From>(from + i))));
  }
}

}  // namespace

Status copy(const char* op, const TensorView& x, const TensorView& y) {
  VMO_TRY(require_dtype(op, "y", y, x.dtype));
  VMO_TRY(require_output(op, "y", y, x.numel()));
  if (x.data != y.data || !x.is_contiguous()) copy_contiguous(x, y.data);
  return kOk;
}

Status cast(const char* op, const TensorView& x, const TensorView& y) {
  if (x.dtype == y.dtype) return copy(op, x, y);
  VMO_TRY(require_output(op, "y", y, x.numel()));
  Rows rows;
  VMO_TRY(input_rows(op, "x", x, x.numel(), ScratchSlot::kMaterialise0, &rows));
  bool known = false;
  with_type(x.dtype, [&](auto from) {
    known = with_type(y.dtype, [&](auto to) {
      for_row_ranges(x.numel(), 1, [&](int64_t begin, int64_t end) {
        convert_range<typename decltype(from)::Type, typename decltype(to)::Type>(
            rows.data, static_cast<char*>(y.data), begin, end);
      });
    });
  });
  if (!known) return fail(op, "cannot convert %s to %s", name_of(x.dtype), name_of(y.dtype));
  return kOk;
}

Status split(const char* op, const TensorView& x, int64_t axis, int outputs, const TensorView* out) {
  int at = 0;
  VMO_TRY(require_axis(op, x, axis, &at));
  int64_t total = 0;
  for (int i = 0; i < outputs; ++i) {
    if (out[i].ndim != x.ndim) {
      return fail(op, "output %d has shape %s; expected %d dimensions", i, shape_text(out[i]), x.ndim);
    }
    total += out[i].shape[at];
  }
  if (total != x.shape[at]) {
    return fail(op, "outputs take %lld elements of axis %d of x %s", static_cast<long long>(total), at, shape_text(x));
  }
  TensorView part = x;
  auto* begin = static_cast<char*>(x.data);
  for (int i = 0; i < outputs; ++i) {
    part.shape[at] = out[i].shape[at];
    part.data = begin;
    VMO_TRY(copy(op, part, out[i]));
    begin += part.shape[at] * x.strides[at] * static_cast<int64_t>(size_of(x.dtype));
  }
  return kOk;
}

}  // namespace vmo
