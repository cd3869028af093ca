// SPDX-License-Identifier: Apache-2.0
// The C functions around the coding of compressed weights.
#include <initializer_list>

#include "check.h"
#include "guard.h"
#include "vmo/api.h"
#include "vmo/core.h"

namespace {

using vmo::kOk;

template <class Body>
int call(const char* op, Body body, std::initializer_list<const vmo_tensor*> tensors) {
  for (const vmo_tensor* tensor : tensors) {
    if (tensor == nullptr) return vmo::fail(op, "a required tensor is a null pointer");
    VMO_TRY(vmo::check_view(op, *tensor));
  }
  return vmo::guarded(op, body);
}

}  // namespace

int vmo_core_sparse_index(const vmo_tensor* weight, const vmo_tensor* index, const vmo_tensor* stream_bytes) {
  constexpr const char* kName = "sparse_index";
  const auto body = [&] {
    int64_t bytes = 0;
    VMO_TRY(vmo::require_vector(kName, "stream_bytes", *stream_bytes, vmo::DType::kInt64, 1));
    VMO_TRY(vmo::sparse_index(kName, *weight, *index, &bytes));
    vmo::store_unaligned(stream_bytes->data, bytes);
    return kOk;
  };
  return call(kName, body, {weight, index, stream_bytes});
}

int vmo_core_sparse_encode(const vmo_tensor* weight, const vmo_tensor* index, const vmo_tensor* stream) {
  constexpr const char* kName = "sparse_encode";
  const auto body = [&] { return vmo::sparse_encode(kName, *weight, *index, *stream); };
  return call(kName, body, {weight, index, stream});
}

int vmo_core_sparse_validate(const vmo_tensor* stream, const vmo_tensor* index, int64_t outputs, int64_t inputs) {
  constexpr const char* kName = "sparse_validate";
  const auto body = [&] { return vmo::sparse_validate(kName, *stream, *index, outputs, inputs); };
  return call(kName, body, {stream, index});
}

int vmo_core_sparse_decode(const vmo_tensor* stream, const vmo_tensor* index, const vmo_tensor* weight) {
  constexpr const char* kName = "sparse_decode";
  const auto body = [&] { return vmo::sparse_decode(kName, *stream, *index, *weight); };
  return call(kName, body, {stream, index, weight});
}
