// SPDX-License-Identifier: Apache-2.0
// Reading of MindSpore kernel arguments.
#include "arguments.h"

#include <exception>

namespace vmo::plugin {

Status Arguments::require_count(int expected) const {
  if (count_ >= expected) return kOk;
  return fail(op_, "got %d arguments; expected at least %d", count_, expected);
}

Status Arguments::view(int i, TensorView* out) const {
  if (ndims_[i] > kMaxRank) return fail(op_, "argument %d has %d dimensions; expected at most %d", i, ndims_[i], kMaxRank);
  const DType dtype = parse_dtype(dtypes_[i]);
  if (dtype == DType::kInvalid) {
    return fail(op_, "argument %d has the unsupported type \"%s\"", i, dtypes_[i] == nullptr ? "" : dtypes_[i]);
  }
  *out = contiguous_view(params_[i], dtype, ndims_[i], shapes_[i]);
  return kOk;
}

Status Arguments::input(int i, TensorView* out) const {
  *out = TensorView{};
  if (absent(i) && parse_dtype(dtypes_[i]) == DType::kInvalid) return kOk;  // None
  if (view(i, out) != kOk) return kError;
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

Status Arguments::output(int from_end, TensorView* out) const { return view(count_ - from_end, out); }

namespace {

// Scalars arrive as pointers to a host value of the type MindSpore names.
template <class T>
bool read_scalar(const void* data, const char* type, T* out) {
  switch (parse_dtype(type)) {
    case DType::kInt64: *out = static_cast<T>(load_unaligned<int64_t>(data)); return true;
    case DType::kInt32: *out = static_cast<T>(load_unaligned<int32_t>(data)); return true;
    case DType::kFloat32: *out = static_cast<T>(load_unaligned<float>(data)); return true;
    case DType::kFloat64: *out = static_cast<T>(load_unaligned<double>(data)); return true;
    case DType::kBool: *out = static_cast<T>(load_unaligned<uint8_t>(data)); return true;
    default: return false;
  }
}

}  // namespace

Status Arguments::integer(int i, const char* name, int64_t* out) const {
  if (!absent(i) && read_scalar(params_[i], dtypes_[i], out)) return kOk;
  return fail(op_, "argument %s has type \"%s\"; expected an integer", name, dtypes_[i] == nullptr ? "" : dtypes_[i]);
}

Status Arguments::real(int i, const char* name, double* out) const {
  if (!absent(i) && read_scalar(params_[i], dtypes_[i], out)) return kOk;
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

int run_kernel(OpStats& stats, const Arguments& arguments, Status (*body)(const Arguments& arguments)) {
  const OpTimer timer(stats);
  if (noop()) return kOk;
  try {
    return body(arguments);
  } catch (const std::exception& error) {
    return fail(arguments.op(), "failed: %s", error.what());
  }
}

}  // namespace vmo::plugin
