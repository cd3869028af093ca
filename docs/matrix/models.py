# SPDX-License-Identifier: Apache-2.0
"""Models that are served, and what of their config.json and checkpoints is."""

from __future__ import annotations

from docs.matrix.rows import Model, Tested
from vllm_mindspore.model_executor.layers.rotary_embedding import ROPE_TYPES

TESTS = (
    "tests/e2e/test_correctness.py::test_prompt_logprobs",
    "tests/e2e/test_correctness.py::test_greedy_tokens",
)
"""Run for every checkpoint of a model, in each data type, against transformers."""

MODELS = (
    Model("Ernie4_5ForCausalLM", "ERNIE 4.5 0.3B", ("ernie4_5",)),
    Model("Glm4ForCausalLM", "GLM-4 0414 9B, 32B", ("glm4",), "fp32 bf16; vLLM refuses fp16"),
    Model("GlmForCausalLM", "GLM-4 9B, GLM-Edge", ("glm",)),
    Model("LlamaForCausalLM", "Llama 2, Llama 3.x", ("llama", "llama3-rope", "llama-biases")),
    Model("MistralForCausalLM", "Mistral 7B from v0.2, Mistral Nemo", ("mistral",)),
    Model("Qwen2ForCausalLM", "Qwen2, Qwen2.5", ("qwen2",)),
    Model(
        "Qwen3ForCausalLM",
        "Qwen3-0.6B to 32B, the bundled tiny model",
        ("qwen3", "qwen3-untied-sharded"),
    ),
    Model("SeedOssForCausalLM", "Seed-OSS 36B", ("seed_oss",)),
)

_CONFIG_TESTS = "tests/model_executor/models/test_config.py"
CONFIG = (
    Tested(
        "rope type",
        ", ".join(f"`{name}`" for name in ROPE_TYPES)
        + ", in the spelling of transformers 4 and 5; others are refused "
        "([`dynamic`](architecture.md#from-configjson-to-a-graph))",
        (
            "tests/model_executor/layers/test_rotary_embedding.py::"
            "test_dynamic_is_that_of_the_longest_sequence",
            f"{_CONFIG_TESTS}::test_spellings_of_rope_agree",
            "tests/model_executor/layers/test_rotary_embedding.py::test_tables_equal_transformers",
        ),
    ),
    Tested(
        "other fields that change the computation (activation, biases, multipliers, ...)",
        "what a model type implements; other values are refused by field and value",
        (
            f"{_CONFIG_TESTS}::test_biases",
            f"{_CONFIG_TESTS}::test_values_that_are_not_implemented_are_named",
        ),
    ),
    Tested(
        "sliding window",
        "off, or `--disable-sliding-window`, which limits the context to it; refused when on",
        ("tests/test_config_checks.py::test_disabled_sliding_window_limits_the_context",),
    ),
    Tested(
        "weights",
        "safetensors in bf16, fp16 or fp32, single or sharded, read in any of the three; "
        "pickle files are refused",
        ("tests/model_executor/model_loader/test_safetensors.py::test_every_dtype_converts",),
    ),
    Tested(
        "quantized weights: W8A8 with static scales, W8A8_DYNAMIC, W8A16, W4A16, mixed by layer",
        "folders of Golden Stick and ModelSlim, recognised by their description file or named by "
        "`--quantization golden-stick`, `ascend` or `SmoothQuant`; other types are refused",
        (
            "tests/e2e/test_quantized.py::test_logprobs_in_float32",
            "tests/e2e/test_quantized.py::test_logprobs_of_weights_alone",
            "tests/quantization/schemes/test_w8a8.py::test_what_is_wrong_is_named",
            "tests/test_quantized_configs.py::test_descriptions_are_recognised",
        ),
    ),
    Tested(
        "int8 key/value cache (C8) with static scales per channel",
        "bf16 and fp16, with any of these linear layers; twice the tokens in the same bytes; "
        "refused in fp32",
        (
            "tests/e2e/test_int8_cache.py::test_logprobs",
            "tests/e2e/test_int8_cache.py::test_chunked_prefill_and_preemption",
            "tests/e2e/test_int8_cache.py::test_twice_the_tokens_in_the_same_bytes",
            "tests/quantization/test_kv_cache.py::test_contradictions_are_refused",
        ),
    ),
    Tested(
        "quantized weights: int8 of llm-compressor (compressed-tensors)",
        "channel weights, static (with or without zero point) or per-token inputs; recognised by "
        "config.json, or `--quantization compressed-tensors`; the other schemes are refused",
        (
            "tests/e2e/test_compressed_tensors.py::test_logprobs_in_float32",
            "tests/quantization/test_compressed_tensors.py::test_anything_else_is_refused_by_name",
        ),
    ),
    Tested(
        "compressed sparse weights: W8A8SC in our coding, float16",
        "`--load-format sparse_quant` or no flag; files in an NPU's coding are checked and refused "
        "([what each device computes](sparse_quant_format.md#what-each-device-computes))",
        (
            "tests/server/test_sparse_quant.py::test_the_document",
            "tests/e2e/test_compressed_weights.py::test_the_bits_of_the_uncompressed_folder",
            "tests/quantization/test_sparse_codec.py::"
            "test_a_flipped_bit_is_refused_or_another_weight",
            "tests/hostile/test_compressed_folders.py::test_npu_coding_is_checked_and_refused",
        ),
    ),
    Tested(
        "`vllm-mindspore convert`",
        "W8A8S or W8A8 to W8A8SC for a number of ranks, to another number, and back",
        ("tests/conversion/test_convert.py::test_there_and_back",),
    ),
    Tested(
        "`vllm-mindspore inspect`",
        "what a checkpoint folder is and why it could not be served, from headers alone",
        ("tests/cli/test_inspect.py::test_a_right_folder",),
    ),
    Tested(
        "making quantized weights: W8A8, W8A8_DYNAMIC, W8A16, W4A16; SmoothQuant, OSL, OS+",
        "`vllm-mindspore quantize` or Golden Stick's `PTQ` on our networks; folders of Golden "
        "Stick or ModelSlim",
        (
            "tests/e2e/test_made_checkpoints.py::test_the_engine_computes_what_was_written",
            "tests/quantization/ptq/test_layer_quantizer.py::"
            "test_the_tensors_are_those_of_golden_stick",
            "tests/quantization/ptq/test_golden_stick.py::test_the_users_script",
            "tests/cli/test_quantize.py::test_killed_and_taken_up_it_writes_the_same_bytes",
        ),
    ),
)
