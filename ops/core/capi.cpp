// SPDX-License-Identifier: Apache-2.0
// The C functions around the operations: checks of pointers and views, and no exception beyond this point.
#include "vmo/api.h"

#include <initializer_list>

#include "attention_attributes.h"
#include "check.h"
#include "decoder_layers.h"
#include "guard.h"
#include "sublayers.h"
#include "vmo/core.h"
#include "vmo/kernel_table.h"

namespace {

using vmo::fail;
using vmo::TensorView;

const TensorView kAbsent{};

const TensorView& optional(const vmo_tensor* tensor) { return tensor == nullptr ? kAbsent : *tensor; }

// Tensors one argument points to.
struct Views {
  const vmo_tensor* first;
  int count = 1;
  bool required = true;
};

Views needed(const vmo_tensor* tensor) { return {tensor}; }
Views maybe(const vmo_tensor* tensors, int count = 1) { return {tensors, tensors == nullptr ? 0 : count, false}; }

// Runs body() unless one of the tensors is missing or malformed.
template <class Body>
int call(const char* op, Body body, std::initializer_list<Views> arguments) {
  for (const Views& views : arguments) {
    if (views.required && views.first == nullptr) return fail(op, "a required tensor is a null pointer");
    for (int i = 0; i < views.count; ++i) VMO_TRY(vmo::check_view(op, views.first[i]));
  }
  return vmo::guarded(op, body);
}

}  // namespace

int vmo_core_linear(const vmo_tensor* x, int weights, const vmo_tensor* w, const vmo_tensor* bias,
                    const vmo_tensor* y) {
  const auto body = [&] { return vmo::linear("linear", *x, weights, w, bias, *y); };
  // A number the operation refuses says nothing about the arrays.
  const int given = weights < 1 || weights > vmo::kMaxWeights ? 0 : weights;
  return call("linear", body, {needed(x), Views{w, given}, maybe(bias, given), needed(y)});
}

int vmo_core_matmul(const vmo_tensor* a, const vmo_tensor* b, int transpose_a, int transpose_b, const vmo_tensor* y) {
  const auto body = [&] { return vmo::matmul("matmul", *a, *b, transpose_a != 0, transpose_b != 0, *y); };
  return call("matmul", body, {needed(a), needed(b), needed(y)});
}

int vmo_core_gate_up_swiglu(const vmo_tensor* x, const vmo_tensor* gate, const vmo_tensor* up, const vmo_tensor* y) {
  const auto body = [&] { return vmo::gate_up_swiglu("gate_up_swiglu", *x, *gate, *up, *y); };
  return call("gate_up_swiglu", body, {needed(x), needed(gate), needed(up), needed(y)});
}

int vmo_core_quantize(const vmo_tensor* x, int kind, const vmo_tensor* scale, const vmo_tensor* offset,
                      const vmo_tensor* codes, const vmo_tensor* token_scale) {
  const auto body = [&] {
    if (kind < 0 || kind > static_cast<int>(vmo::CodeKind::kPerToken)) return fail("quantize", "unknown kind %d", kind);
    const vmo::ActivationCodes how{static_cast<vmo::CodeKind>(kind), optional(scale), optional(offset)};
    return vmo::quantize("quantize", *x, how, *codes, optional(token_scale));
  };
  return call("quantize", body, {needed(x), maybe(scale), maybe(offset), needed(codes), maybe(token_scale)});
}

int vmo_core_norm_codes(const vmo_tensor* x, const vmo_tensor* residual, const vmo_tensor* gamma, double epsilon,
                        int kind, const vmo_tensor* scale, const vmo_tensor* offset, const vmo_tensor* codes,
                        const vmo_tensor* token_scale, const vmo_tensor* sum) {
  const auto body = [&] {
    if (kind < 0 || kind > static_cast<int>(vmo::CodeKind::kPerToken)) return fail("norm_codes", "unknown kind %d", kind);
    const vmo::ActivationCodes how{static_cast<vmo::CodeKind>(kind), optional(scale), optional(offset)};
    return vmo::norm_codes("norm_codes", *x, optional(residual), *gamma, epsilon, how, *codes, optional(token_scale),
                           optional(sum));
  };
  return call("norm_codes", body,
              {needed(x), maybe(residual), needed(gamma), maybe(scale), maybe(offset), needed(codes),
               maybe(token_scale), maybe(sum)});
}

namespace {

// `each`: tensors of a weight, the last one being an index where there are five.
int call_int8_linear(const char* op, int each, const vmo_tensor* codes, const vmo_tensor* token_scale, int weights,
                     const vmo_tensor* w, const vmo_tensor* y) {
  const int given = weights < 1 || weights > vmo::kMaxWeights ? 0 : weights;
  const auto body = [&] {
    vmo::Int8Weight list[vmo::kMaxWeights];
    for (int i = 0; i < given; ++i) {
      const vmo_tensor* one = w + i * each;
      list[i] = {one[0], one[1], one[2], one[3], each == 5 ? one[4] : kAbsent};
    }
    return vmo::int8_linear(op, *codes, optional(token_scale), weights, list, *y);
  };
  return call(op, body, {needed(codes), maybe(token_scale), Views{w, given * each}, needed(y)});
}

}  // namespace

int vmo_core_int8_linear(const vmo_tensor* codes, const vmo_tensor* token_scale, int weights, const vmo_tensor* w,
                         const vmo_tensor* y) {
  return call_int8_linear("int8_linear", 4, codes, token_scale, weights, w, y);
}

int vmo_core_sparse_linear(const vmo_tensor* codes, const vmo_tensor* token_scale, int weights, const vmo_tensor* w,
                           const vmo_tensor* y) {
  return call_int8_linear("sparse_linear", 5, codes, token_scale, weights, w, y);
}

int vmo_core_weight_only_linear(const vmo_tensor* x, int bits, int64_t group, int weights, const vmo_tensor* w,
                                const vmo_tensor* y) {
  constexpr const char* kName = "weight_only_linear";
  constexpr int kEach = 4;
  const int given = weights < 1 || weights > vmo::kMaxWeights ? 0 : weights;
  const auto body = [&] {
    if (bits != 4 && bits != 8) return fail(kName, "got weights of %d bits; expected 4 or 8", bits);
    vmo::CodedWeight list[vmo::kMaxWeights];
    for (int i = 0; i < given; ++i) {
      const vmo_tensor* one = w + i * kEach;
      list[i] = {one[0], one[1], one[2], one[3]};
    }
    return vmo::weight_only_linear(kName, *x, static_cast<vmo::WeightCodes>(bits), group, weights, list, *y);
  };
  return call(kName, body, {needed(x), Views{w, given * kEach}, needed(y)});
}

int vmo_core_lm_head(const vmo_tensor* hidden, const vmo_tensor* rows, const vmo_tensor* weight, const vmo_tensor* y) {
  const auto body = [&] {
    vmo::TensorList list(weight, 1);
    vmo::Projection head;
    VMO_TRY(vmo::read_projection("lm_head", "weight", &list, 1, false, &head));
    return vmo::lm_head("lm_head", *hidden, *rows, head, *y);
  };
  return call("lm_head", body, {needed(hidden), needed(rows), needed(weight), needed(y)});
}

int vmo_core_lora(const vmo_tensor* y, const vmo_tensor* x, const vmo_tensor* slots, const vmo_tensor* a, int parts,
                  const vmo_tensor* b, const vmo_tensor* out) {
  const auto body = [&] { return vmo::lora("lora", *y, *x, *slots, *a, parts, b, *out); };
  const int given = parts < 1 || parts > vmo::kMaxWeights ? 0 : parts;
  return call("lora", body, {needed(y), needed(x), needed(slots), needed(a), Views{b, given}, needed(out)});
}

int vmo_core_gather(const vmo_tensor* params, const vmo_tensor* indices, int64_t axis, int64_t batch_dims,
                    const vmo_tensor* y) {
  const auto body = [&] { return vmo::gather("gather", *params, *indices, axis, batch_dims, *y); };
  return call("gather", body, {needed(params), needed(indices), needed(y)});
}

int vmo_core_rms_norm(const vmo_tensor* x, const vmo_tensor* gamma, double epsilon, const vmo_tensor* y,
                      const vmo_tensor* rstd) {
  const auto body = [&] { return vmo::rms_norm("rms_norm", *x, *gamma, epsilon, *y, optional(rstd)); };
  return call("rms_norm", body, {needed(x), needed(gamma), needed(y), maybe(rstd)});
}

int vmo_core_add_rms_norm(const vmo_tensor* x, const vmo_tensor* residual, const vmo_tensor* gamma, double epsilon,
                          const vmo_tensor* y, const vmo_tensor* rstd, const vmo_tensor* sum) {
  const auto body = [&] {
    return vmo::add_rms_norm("add_rms_norm", *x, *residual, *gamma, epsilon, *y, optional(rstd), *sum);
  };
  return call("add_rms_norm", body,
              {needed(x), needed(residual), needed(gamma), needed(y), maybe(rstd), needed(sum)});
}

int vmo_core_rotary(const vmo_tensor* x, const vmo_tensor* cos, const vmo_tensor* sin, int64_t head_dim,
                    int interleaved, const vmo_tensor* y) {
  const auto body = [&] { return vmo::rotary("rotary", *x, *cos, *sin, head_dim, interleaved != 0, *y); };
  return call("rotary", body, {needed(x), needed(cos), needed(sin), needed(y)});
}

int vmo_core_swiglu(const vmo_tensor* x, int64_t axis, const vmo_tensor* y) {
  const auto body = [&] { return vmo::swiglu("swiglu", *x, axis, *y); };
  return call("swiglu", body, {needed(x), needed(y)});
}

int vmo_core_silu(const vmo_tensor* x, const vmo_tensor* y) {
  const auto body = [&] { return vmo::silu("silu", *x, *y); };
  return call("silu", body, {needed(x), needed(y)});
}

int vmo_core_reshape_and_cache(const vmo_tensor* key, const vmo_tensor* value, const vmo_tensor* key_cache,
                               const vmo_tensor* value_cache, const vmo_tensor* slot_mapping) {
  const auto body = [&] {
    return vmo::reshape_and_cache("reshape_and_cache", *key, optional(value), *key_cache, optional(value_cache),
                                  *slot_mapping);
  };
  return call("reshape_and_cache", body,
              {needed(key), maybe(value), needed(key_cache), maybe(value_cache), needed(slot_mapping)});
}

int vmo_core_paged_attention(const vmo_tensor* query, const vmo_tensor* key_cache, const vmo_tensor* value_cache,
                             const vmo_tensor* block_tables, const vmo_tensor* context_lens,
                             const vmo_tensor* query_lens, int64_t heads, int64_t kv_heads, double scale,
                             const vmo_tensor* out) {
  const auto body = [&] {
    const vmo::PagedSequences sequences{*block_tables, *context_lens, optional(query_lens)};
    return vmo::paged_attention("paged_attention", *query, *key_cache, *value_cache, sequences, heads, kv_heads, scale,
                                *out);
  };
  return call("paged_attention", body,
              {needed(query), needed(key_cache), needed(value_cache), needed(block_tables), needed(context_lens),
               maybe(query_lens), needed(out)});
}

int vmo_core_attention_block(const vmo_tensor* tensors, int inputs) {
  constexpr const char* kName = "attention_block";
  if (inputs < 0) return fail(kName, "got %d tensors", inputs);
  const auto body = [&] { return vmo::attention_block_from(kName, tensors, inputs, tensors[inputs]); };
  return call(kName, body, {Views{tensors, inputs + 1}});
}

int vmo_core_attention_sublayer(const vmo_tensor* tensors, int inputs) {
  constexpr const char* kName = "attention_sublayer";
  if (inputs < 0) return fail(kName, "got %d tensors", inputs);
  const auto body = [&] {
    vmo::AttentionSublayer args{};
    VMO_TRY(vmo::read_attention_sublayer(kName, tensors, inputs, &args));
    return vmo::attention_sublayer(kName, args, tensors[inputs], tensors[inputs + 1]);
  };
  return call(kName, body, {Views{tensors, inputs + 2}});
}

int vmo_core_mlp_sublayer(const vmo_tensor* tensors, int inputs) {
  constexpr const char* kName = "mlp_sublayer";
  if (inputs < 0) return fail(kName, "got %d tensors", inputs);
  const auto body = [&] {
    vmo::MlpSublayer args{};
    VMO_TRY(vmo::read_mlp_sublayer(kName, tensors, inputs, &args));
    return vmo::mlp_sublayer(kName, args, tensors[inputs], tensors[inputs + 1]);
  };
  return call(kName, body, {Views{tensors, inputs + 2}});
}

int vmo_core_decoder_layers(const vmo_tensor* tensors, int inputs) {
  constexpr const char* kName = "decoder_layers";
  if (inputs < 0) return fail(kName, "got %d tensors", inputs);
  const auto body = [&] {
    return vmo::decoder_layers(kName, vmo::DecoderLayers{tensors, inputs}, tensors[inputs], tensors[inputs + 1]);
  };
  return call(kName, body, {Views{tensors, inputs + 2}});
}

int vmo_core_cast(const vmo_tensor* x, const vmo_tensor* y) {
  const auto body = [&] { return vmo::cast("cast", *x, *y); };
  return call("cast", body, {needed(x), needed(y)});
}

int vmo_core_copy(const vmo_tensor* x, const vmo_tensor* y) {
  const auto body = [&] { return vmo::copy("copy", *x, *y); };
  return call("copy", body, {needed(x), needed(y)});
}

int vmo_core_split(const vmo_tensor* x, int64_t axis, int outputs, const vmo_tensor* y) {
  const auto body = [&] { return vmo::split("split", *x, axis, outputs, y); };
  return call("split", body, {needed(x), Views{y, outputs}});
}
