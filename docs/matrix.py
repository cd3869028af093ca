# SPDX-License-Identifier: Apache-2.0
"""What runs and what is refused, with its proof: the data of docs/models_and_features.md.

`make docs` prints it there. `tests/test_docs.py` checks that every named test, checkpoint and
refusing check exists, and that every architecture has its row.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from vllm_mindspore.model_executor.layers.rotary_embedding import ROPE_TYPES
from vllm_mindspore.unused_options import UNUSED, UNUSED_EARLY, UNUSED_VARIABLES

MODEL_TESTS = (
    "tests/e2e/test_correctness.py::test_prompt_logprobs",
    "tests/e2e/test_correctness.py::test_greedy_tokens",
)
"""Run for every checkpoint of a model, in each data type, against transformers."""


@dataclass(frozen=True)
class Model:
    """An architecture that is served.

    Attributes:
        architecture: as in config.json.
        examples: published models that have it.
        checkpoints: names in tests/e2e/checkpoints.py that `MODEL_TESTS` run.
        dtypes: those they run in.
    """

    architecture: str
    examples: str
    checkpoints: tuple[str, ...]
    dtypes: str = "fp32 bf16 fp16"


@dataclass(frozen=True)
class Tested:
    """A feature that was executed.

    Attributes:
        feature: what the user gets.
        result: what the tests establish.
        tests: their node ids without parameters.
    """

    feature: str
    result: str
    tests: tuple[str, ...]


@dataclass(frozen=True)
class Refused:
    """A feature that is refused by name.

    Attributes:
        feature: what the user asks for.
        instead: what to do.
        check: `module:function` of this package that refuses it, or `unused_options:path`.
    """

    feature: str
    instead: str
    check: str


@dataclass(frozen=True)
class NotRun:
    """Something this project has not executed, or only in part."""

    what: str
    state: str


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
            "tests/test_config_checks.py::test_descriptions_are_recognised",
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

FEATURES = (
    Tested(
        "Continuous batching, chunked prefill, prefix caching, preemption",
        "identical fp32 results, bit for bit",
        (
            "tests/e2e/test_invariance.py::test_alone",
            "tests/e2e/test_invariance.py::test_prefix_cache_hit",
            "tests/e2e/test_invariance.py::test_chunked_prefill_and_preemption",
        ),
    ),
    Tested(
        "`--block-size` 16, 32, 64, 128",
        "identical fp32 results, bit for bit",
        ("tests/e2e/test_invariance.py::test_block_sizes",),
    ),
    Tested(
        "OpenAI server: completions, chat, streaming",
        "real requests over HTTP",
        (
            "tests/cli/test_demo.py::test_prints_answers_and_speed",
            "tests/evaluation/test_through_the_engine.py::test_over_http_in_bf16",
        ),
    ),
    Tested(
        "`LLM()` in a script, with and without a main guard",
        "answers, or an error that says what to do",
        (
            "tests/test_offline_scripts.py::test_without_main_guard",
            "tests/test_offline_scripts.py::test_spawn_without_main_guard_is_an_error",
        ),
    ),
    Tested(
        "Log probabilities, prompt log probabilities",
        "equal to those of transformers",
        (
            "tests/e2e/test_correctness.py::test_prompt_logprobs",
            "tests/e2e/test_tiny_model.py::test_logprobs_rank_the_chosen_token_first",
            "tests/e2e/test_engine.py::test_preempted_prompts_are_scored_once",
        ),
    ),
    Tested(
        "Structured output (vLLM's grammar backends)",
        "every answer obeys its grammar",
        ("tests/e2e/test_tiny_model.py::test_structured_output",),
    ),
    Tested(
        "Temperature, top-k, top-p, min-p, logit bias, allowed tokens, penalties, stop tokens",
        "samples follow the reference's distribution; greedy penalties equal their formulas",
        (
            "tests/e2e/test_sampling.py::test_samples_follow_the_distribution",
            "tests/e2e/test_sampling.py::test_penalties_of_greedy_answers",
            "tests/e2e/test_sampling.py::test_stop_tokens_and_the_least_number",
            "tests/e2e/test_sampling.py::test_every_logit_processor_leaves_others_alone",
        ),
    ),
    Tested(
        "Asynchronous scheduling (off unless asked for) and without, priorities, beam search",
        "the same tokens; urgent requests first; the beams of the reference",
        (
            "tests/test_platform.py::test_asynchronous_scheduling_is_for_those_who_ask",
            "tests/e2e/test_scheduling.py::test_asynchronous_scheduling_changes_nothing",
            "tests/e2e/test_scheduling.py::test_urgent_requests_go_first",
            "tests/e2e/test_scheduling.py::test_beam_search_keeps_the_best_continuations",
        ),
    ),
    Tested(
        "Sleep and wake (`--enable-sleep-mode`), level 1; level 2 is refused",
        "the cache's memory goes back to the system, answers stay",
        (
            "tests/e2e/test_scheduling.py::test_sleep_frees_the_cache_and_keeps_answers",
            "tests/e2e/test_scheduling.py::test_deeper_sleep_is_refused",
        ),
    ),
    Tested(
        "Tensor parallelism (`--tensor-parallel-size`), kv heads shared where there are fewer",
        "fp32 tokens equal those of one rank; per-token scales, those of a divided reference",
        (
            "tests/e2e/test_tensor_parallel.py::test_two_ranks_equal_one",
            "tests/e2e/test_tensor_parallel.py::test_families",
            "tests/e2e/test_tensor_parallel.py::test_each_rank_has_token_scales_of_its_own",
            "tests/e2e/test_tensor_parallel.py::test_static_scales_give_the_same_tokens",
            "ops/tests/test_collectives.py::test_a_killed_rank_is_named_within_seconds",
        ),
    ),
    Tested(
        "Data parallelism (`--data-parallel-size`)",
        "engines, of one rank or several, share cores and memory; answers equal those of one",
        ("tests/server/test_data_parallel.py::test_engines_share_the_requests",),
    ),
    Tested(
        "`--distributed-executor-backend` uni, mp, ray ([Ray](install.md#ray) is an extra)",
        "the same texts; what was started ends with the server",
        (
            "tests/server/test_stopping.py::test_signal_stops_in_order",
            "tests/server/test_ray.py::test_server_with_a_cluster_of_its_own",
            "tests/test_ray_executor.py::test_joins_the_cluster_of_its_process",
        ),
    ),
    Tested(
        "Seeds, several answers, stop strings",
        "a seed gives the same text in any company, in bf16 with `VLLM_BATCH_INVARIANT=1`",
        (
            "tests/e2e/test_tiny_model.py::test_a_seed_gives_the_same_text_in_any_company",
            "tests/e2e/test_tiny_model.py::test_several_answers_and_stop_strings",
        ),
    ),
    Tested(
        "Speculative decoding by prompt lookup (`ngram`)",
        "the same tokens and log probabilities in fewer steps, greedy and with seeds; in bf16 with "
        "`VLLM_BATCH_INVARIANT=1`",
        (
            "tests/e2e/test_speculative_decoding.py::test_same_tokens_and_logprobs",
            "tests/e2e/test_speculative_decoding.py::test_same_tokens_and_logprobs_in_bfloat16",
            "tests/e2e/test_speculative_decoding.py::test_accepted_drafts_save_steps",
        ),
    ),
    Tested(
        "LoRA (`--enable-lora`): PEFT folders, several in a batch, loaded and removed at run time",
        "each request equals transformers with its adapter merged",
        (
            "tests/e2e/test_lora.py::test_every_request_has_its_adapter",
            "tests/e2e/test_lora.py::test_a_prefix_is_shared_within_an_adapter_only",
            "tests/e2e/test_lora.py::test_adapters_come_and_go",
            "tests/server/test_adapters.py::test_adapters_are_models_of_their_own",
        ),
    ),
    Tested(
        "Pooling (`--runner pooling`): embeddings, classification, scores",
        "equal to those of transformers",
        (
            "tests/e2e/test_pooling.py::test_embeddings",
            "tests/e2e/test_pooling.py::test_every_token",
            "tests/e2e/test_pooling.py::test_classification",
            "tests/e2e/test_pooling.py::test_scores_by_two_words",
            "tests/e2e/test_pooling.py::test_scores_of_embeddings",
            "tests/server/test_embeddings.py::test_embeddings",
        ),
    ),
    Tested(
        "`--gpu-memory-utilization`, `--kv-cache-memory-bytes`",
        "the cache has that size ([meaning on CPU](architecture.md#memory))",
        (
            "tests/e2e/test_engine.py::test_share_of_memory_is_honoured",
            "tests/e2e/test_engine.py::test_cache_bytes_are_honoured",
        ),
    ),
    Tested(
        "`--load-format` auto, hf, safetensors, dummy",
        "weights from the folder, or random ones",
        (
            "tests/model_executor/model_loader/test_safetensors.py::test_values_survive",
            "tests/e2e/test_engine.py::test_dummy_weights_generate",
        ),
    ),
    Tested(
        "`VLLM_MS_FUSED_KERNELS=0`",
        "the chain of Ascend primitives equals the reference",
        ("tests/e2e/test_primitive_chain.py::test_chain_equals_the_reference",),
    ),
    Tested(
        "`VLLM_BATCH_INVARIANT=1`",
        "a request's bf16 results do not depend on its batch (fp32 and fp16 ones never do)",
        (
            "tests/e2e/test_invariance.py::test_bfloat16",
            "ops/tests/test_matmul.py::test_batch_invariance",
        ),
    ),
    Tested(
        "`VLLM_COMPUTE_NANS_IN_LOGITS`, `VLLM_RAISE_ON_LOGIT_NANS`",
        "counted per request, raised",
        (
            "tests/e2e/test_nan_logits.py::test_counted_per_request",
            "tests/e2e/test_nan_logits.py::test_raised",
        ),
    ),
)

REFUSED = (
    Refused(
        "Pipeline and context parallelism", "`--tensor-parallel-size`", "config_checks:_one_worker"
    ),
    Refused(
        "Tensor parallelism with LoRA or Ray, or where ranks do not divide the model",
        "a number of ranks that the message lists; `mp`",
        "config_checks:_tensor_parallel",
    ),
    Refused("Options of other platforms", "drop the option", "config_checks:_additional_config"),
    Refused("External executors", "`uni`, `mp` or `ray`", "config_checks:_executor"),
    Refused("Ray with data parallelism", "`uni` or `mp`", "config_checks:_ray"),
    Refused("LoRA with a data type or sharding of its own", "the model's", "config_checks:_lora"),
    Refused(
        "Speculative decoding with a draft model", "`ngram`", "config_checks:_speculative_decoding"
    ),
    Refused("Multimodal requests", "text or token ids", "config_checks:check_request"),
    Refused("Prompt embeddings", "text or token ids", "config_checks:_prompt_embeds"),
    Refused(
        "Other quantization methods", "the original checkpoint", "checkpoint_checks:quantization"
    ),
    Refused(
        "`--kv-cache-dtype` other than the checkpoint's",
        "`auto`",
        "checkpoint_checks:kv_cache_dtype",
    ),
    Refused(
        "Sliding-window attention", "`--disable-sliding-window`", "config_checks:_sliding_window"
    ),
    Refused(
        "KV connectors, encoder connectors, weight transfer",
        "drop the option",
        "config_checks:_transfer",
    ),
    Refused("KV cache offloading", "`--kv-cache-memory-bytes`", "config_checks:_kv_offloading"),
    Refused("Weight offloading", "weights are mapped from files", "unused_options:offload_config"),
    Refused(
        "Expert parallelism and its load balancing",
        "drop the option",
        "unused_options:parallel_config.enable_expert_parallel",
    ),
    Refused(
        "Watermarks, the second model runner", "drop it", "config_checks:_model_runner_protocol"
    ),
    Refused("`--model-impl transformers`", "`auto`", "config_checks:_model_implementation"),
    Refused("torch.compile, CUDA graphs", "`-O0`", "unused_options:compilation_config"),
    Refused("Attention backends", "drop the option", "unused_options:attention_config"),
    Refused("vLLM's profilers", "drop the option", "unused_options:profiler_config"),
    Refused(
        "`VLLM_MS_MODEL_BACKEND=MindFormers`",
        "`Native`; it comes with its own release",
        "envs:_parse_model_backend",
    ),
)

HARDWARE = (
    Tested(
        "x86-64 with AVX2, AVX-512 or AVX-512-BF16",
        "every kernel tested on each of them",
        (
            "ops/tests/test_matmul.py::test_every_inner_tail",
            "ops/tests/test_isa.py::test_environment_forces_a_level",
        ),
    ),
    Tested(
        "x86-64 with AMX",
        "every kernel tested on CPUs that have it, and with the tile instructions emulated on "
        "those with AVX-512-BF16 that do not",
        (
            "ops/tests/test_matmul.py::test_every_inner_tail",
            "ops/tests/test_amx_emulation.py::test_kernels_on_emulated_tiles",
        ),
    ),
    Tested(
        "other x86-64",
        "portable path, tested by forcing it",
        ("ops/tests/test_attention.py::test_every_head_width",),
    ),
)
HARDWARE_NOT_RUN = (
    NotRun("aarch64", "portable path; only compiled"),
    NotRun(
        "Ascend 300I Duo, 800I A2",
        "not run; the models' primitive chain is the one an NPU executes. W8A8SC in an NPU's "
        "coding is loaded for 300I Duo and its graph exported with MindSpore's inference "
        "([test_npu_coding.py](../tests/model_executor/layers/test_npu_coding.py)), our coding is "
        "decoded on request",
    ),
)

_INTRODUCTION = """# Models and features

Generated from `docs/matrix.py` by `make docs`; do not edit.

"Tested" means: executed and compared with an independent reference in the tests that a row links
to. Everything that is not supported is refused by name; nothing is silently ignored.
"""

_MODELS_NOTE = """
Tested on random checkpoints that cover tied and untied heads, single and sharded files,
grouped-query, multi-query and multi-head attention, head sizes independent of the hidden size,
biases and rope types; and on the trained tiny model. Larger published checkpoints follow the same
rules for tensors and shapes but have not been run here: no model hub was reachable.
"""


def markdown() -> str:
    """The page."""
    parts = [
        _INTRODUCTION,
        "## Models\n",
        _table(
            ("Architecture (`config.json`)", "Examples", "CPU", "Ascend", "Tests"),
            (_model_row(model) for model in MODELS),
        ),
        _MODELS_NOTE,
        _table(("config.json", "Supported", "Tests"), map(_tested_row, CONFIG)),
        "\n## Features\n",
        _table(("Feature", "Tested on CPU", "Tests"), map(_tested_row, FEATURES)),
        "\n## Refused\n",
        _table(("Feature", "Instead"), ((row.feature, row.instead) for row in REFUSED)),
        "\n### Options that nothing here reads\n",
        "Refused unless at vLLM's default or at a value that asks for what happens anyway.\n",
        _table(("Section", "Options"), _unused_rows()),
        "\nEnvironment variables, likewise: "
        + ", ".join(f"`{variable.name}`" for variable in UNUSED_VARIABLES)
        + ".",
        "\n## Hardware\n",
        _table(("Hardware", "State", "Tests"), [*map(_tested_row, HARDWARE), *_hardware_rows()]),
    ]
    return "\n".join(parts) + "\n"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _model_row(model: Model) -> tuple[str, ...]:
    tests = _links(MODEL_TESTS)
    state = f"tested, {model.dtypes}"
    return f"`{model.architecture}`", model.examples, state, "not run", tests


def _tested_row(row: Tested) -> tuple[str, ...]:
    return row.feature, row.result, _links(row.tests)


def _hardware_rows() -> list[tuple[str, ...]]:
    return [(row.what, row.state, "") for row in HARDWARE_NOT_RUN]


def _links(tests: tuple[str, ...]) -> str:
    """One link per file of tests."""
    files = dict.fromkeys(test.partition("::")[0] for test in tests)
    return ", ".join(f"[{name.rpartition('/')[2]}](../{name})" for name in files)


def _unused_rows() -> list[tuple[str, ...]]:
    """Rows by section of VllmConfig; a section as a whole has all of its options."""
    paths = sorted(row.path for row in (*UNUSED, *UNUSED_EARLY))
    rows: list[tuple[str, ...]] = []
    for section, group in groupby(paths, lambda path: path.partition(".")[0]):
        names = [path.partition(".")[2] for path in group]
        listed = ", ".join(f"`{name}`" for name in names if name)
        rows.append((f"`{section}`", listed or "all"))
    return rows


if __name__ == "__main__":
    sys.stdout.write(markdown())
