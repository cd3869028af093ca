// SPDX-License-Identifier: Apache-2.0
// Reading of MindSpore kernel arguments.
#include "arguments.h"

#include <algorithm>
#include <cstring>

#include "core/check.h"
#include "core/guard.h"
#include "vmo/footprint.h"

namespace vmo::plugin {

Status Arguments::require_count(int expected) const {
  if (count_ >= expected) return kOk;
  return fail(op_, "got %d arguments; expected at least %d", count_, expected);
}

Status Arguments::view(int i, DType dtype, TensorView* out) const {
  if (ndims_[i] < 0 || ndims_[i] > kMaxRank) {
    return fail(op_, "argument %d has %d dimensions; expected 0 to %d", i, ndims_[i], kMaxRank);
  }
  if (dtype == DType::kInvalid) {
    return fail(op_, "argument %d has the unsupported type \"%s\"", i, dtypes_[i] == nullptr ? "" : dtypes_[i]);
  }
  out->dtype = dtype;
  out->ndim = ndims_[i];
  std::copy_n(shapes_[i], ndims_[i], out->shape);
  VMO_TRY(check_view(op_, *out));
  *out = contiguous_view(params_[i], dtype, ndims_[i], shapes_[i]);
  return kOk;
}

Status Arguments::input(int i, TensorView* out) const { return input_as(i, parse_dtype(dtypes_[i]), out); }

Status Arguments::input_as(int i, DType dtype, TensorView* out) const {
  *out = TensorView{};
  if (absent(i) && dtype == DType::kInvalid) return kOk;  // None
  if (view(i, dtype, out) != kOk) return kError;
  if (info_ == nullptr) return kOk;
  const auto layout = info_->layout(static_cast<size_t>(i));
  if (!layout.has_value()) return kOk;
  if (static_cast<int>(layout->strides.size()) != out->ndim) {
    return fail(op_, "argument %d has %d dimensions but %zu strides", i, out->ndim, layout->strides.size());
  }
  for (int axis = 0; axis < out->ndim; ++axis) out->strides[axis] = layout->strides[static_cast<size_t>(axis)];
  out->data = static_cast<char*>(out->data) + layout->offset * size_of(out->dtype);
  return kOk;
}

Status Arguments::weight(int i, DType dtype, TensorView* out) const {
  VMO_TRY(input(i, out));
  if (dtype == DType::kBFloat16 && out->dtype == DType::kInt16) out->dtype = DType::kBFloat16;
  return kOk;
}

Status Arguments::codes(int i, TensorView* out, bool* int4) const {
  *int4 = dtypes_[i] != nullptr && std::strcmp(dtypes_[i], "int4") == 0;
  return *int4 ? input_as(i, DType::kInt8, out) : input(i, out);
}

Status Arguments::output(int from_end, TensorView* out) const {
  const int i = count_ - from_end;
  return view(i, parse_dtype(dtypes_[i]), out);
}

namespace {

// Scalars arrive as pointers to a host value of the type MindSpore names.
bool read_integer(const void* data, const char* type, int64_t* out) {
  switch (parse_dtype(type)) {
    case DType::kInt64: *out = load_unaligned<int64_t>(data); return true;
    case DType::kInt32: *out = load_unaligned<int32_t>(data); return true;
    case DType::kBool: *out = load_unaligned<uint8_t>(data); return true;
    default: return false;
  }
}

bool read_number(const void* data, const char* type, double* out) {
  int64_t whole = 0;
  switch (parse_dtype(type)) {
    case DType::kFloat32: *out = load_unaligned<float>(data); return true;
    case DType::kFloat64: *out = load_unaligned<double>(data); return true;
    default: break;
  }
  if (!read_integer(data, type, &whole)) return false;
  *out = static_cast<double>(whole);
  return true;
}

}  // namespace

Status Arguments::integer(int i, const char* name, int64_t* out) const {
  if (!absent(i) && read_integer(params_[i], dtypes_[i], out)) return kOk;
  return fail(op_, "argument %s has type \"%s\"; expected an integer", name, dtypes_[i] == nullptr ? "" : dtypes_[i]);
}

Status Arguments::real(int i, const char* name, double* out) const {
  if (!absent(i) && read_number(params_[i], dtypes_[i], out)) return kOk;
  return fail(op_, "argument %s has type \"%s\"; expected a number", name, dtypes_[i] == nullptr ? "" : dtypes_[i]);
}

Status Arguments::boolean(int i, const char* name, bool* out) const {
  int64_t value = 0;
  if (integer(i, name, &value) != kOk) return kError;
  *out = value != 0;
  return kOk;
}

Status Arguments::require_none(int i, const char* name) const {
  if (absent(i)) return kOk;
  return fail(op_, "argument %s is not supported on CPU; expected None", name);
}

void Arguments::record_outputs() const {
  const int inputs = info_ == nullptr ? count_ - custom_outputs_ : static_cast<int>(info_->input_count());
  for (int i = std::max(inputs, 0); i < count_; ++i) {
    TensorView out;
    if (view(i, parse_dtype(dtypes_[i]), &out) == kOk) record_footprint(out.data, out.bytes());
  }
}

int run_kernel(OpStats& stats, const Arguments& arguments, Body body, Body plan) {
  const OpTimer timer(stats);
  if (footprint_recording()) {
    arguments.record_outputs();
    if (plan != nullptr) VMO_TRY(guarded(arguments.op(), [&] { return plan(arguments); }));
  }
  if (noop()) return kOk;
  return guarded(arguments.op(), [&] { return body(arguments); });
}

}  // namespace vmo::plugin
