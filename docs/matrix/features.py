# SPDX-License-Identifier: Apache-2.0
"""Features of vLLM that run, and those that are refused."""

from __future__ import annotations

from docs.matrix.rows import Refused, Tested

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
        "a seed gives the same text in any company, in bf16 and fp16 with `VLLM_BATCH_INVARIANT=1`",
        (
            "tests/e2e/test_tiny_model.py::test_a_seed_gives_the_same_text_in_any_company",
            "tests/e2e/test_tiny_model.py::test_several_answers_and_stop_strings",
        ),
    ),
    Tested(
        "Speculative decoding by prompt lookup (`ngram`)",
        "the same tokens and log probabilities in fewer steps, greedy and with seeds; in bf16 and "
        "fp16 with `VLLM_BATCH_INVARIANT=1`",
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
        "a request's results do not depend on its batch in bf16 and fp16 (in fp32 they never do)",
        (
            "tests/e2e/test_invariance.py::test_types_of_16_bits",
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
    Refused(
        "Float32, data parallelism, Ray, LoRA and sleep mode with `VLLM_MS_DEVICE=ascend`",
        "a CPU",
        "config_checks:_npus",
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
