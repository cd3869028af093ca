# SPDX-License-Identifier: Apache-2.0
"""config.json values are read in both spellings, and refused by name when not implemented."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoConfig, Qwen3Config
from vllm.engine.arg_utils import EngineArgs

from vllm_mindspore.model_executor.models.config import FAMILIES, decoder_config
from vllm_mindspore.model_executor.models.registry import ARCHITECTURES
from vllm_mindspore.quantization.sharding import Rank

SMALL: dict[str, Any] = {
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}


def _old_config(**changes: Any) -> SimpleNamespace:
    """A config object as transformers 4 made it."""
    values = SMALL | {"model_type": "llama", "rope_theta": 1e6, "rope_scaling": None}
    return SimpleNamespace(**(values | changes))


def _from_json(folder: Path, **values: Any) -> Any:
    """What the installed transformers makes of a config.json."""
    (folder / "config.json").write_text(json.dumps(SMALL | values))
    return AutoConfig.from_pretrained(folder)


def test_head_dim_is_independent_of_hidden_size() -> None:
    config = decoder_config(
        Qwen3Config(hidden_size=64, num_attention_heads=4, head_dim=40, num_key_value_heads=2)
    )
    assert (config.attention.query_size, config.attention.kv_size) == (160, 80)
    assert config.attention.qk_norm


@pytest.mark.parametrize("head_dim", [{}, {"head_dim": None}])
def test_head_dim_defaults_to_hidden_size_per_head(head_dim: dict[str, None]) -> None:
    assert decoder_config(_old_config(**head_dim)).attention.head_dim == 16


YARN = {"factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 20}


@pytest.mark.parametrize("key", ["type", "rope_type"])
@pytest.mark.parametrize("scaling", [None, {"linear": {"factor": 2.0}}, {"yarn": YARN}])
def test_spellings_of_rope_agree(
    key: str, scaling: dict[str, dict[str, Any]] | None, tmp_path: Path
) -> None:
    """transformers 4's and 5's config.json, and a transformers 4 object, give the same."""
    rope_type, values = next(iter((scaling or {"default": {}}).items()))
    old_scaling = values | {key: rope_type} if scaling else None
    old = {"rope_theta": 5e5, "rope_scaling": old_scaling}
    new = {"rope_parameters": values | {key: rope_type, "rope_theta": 5e5}}
    found = [
        decoder_config(_old_config(**old)).rotary,
        decoder_config(_from_json(tmp_path, model_type="llama", **old)).rotary,
        decoder_config(_from_json(tmp_path, model_type="llama", **new)).rotary,
    ]
    assert found[0].rope_type == rope_type
    assert found[0].theta == 5e5
    assert found[0].parameters == values
    assert found[1:] == [found[0]] * 2


@pytest.mark.parametrize(
    "partial",
    [
        {},  # the default of the model type
        {"partial_rotary_factor": 0.5},
        {"rope_parameters": {"partial_rotary_factor": 0.5, "rope_type": "default"}},
    ],
    ids=["default", "top", "rope_parameters"],
)
@pytest.mark.parametrize("model_type", ["glm", "glm4"])
def test_partial_rotary(model_type: str, partial: dict[str, Any], tmp_path: Path) -> None:
    config = decoder_config(_from_json(tmp_path, model_type=model_type, head_dim=32, **partial))
    assert config.attention.rotary_dim == config.rotary.rotary_dim == 16
    assert config.attention.interleaved
    assert config.rotary.interleaved


BIASES: list[tuple[dict[str, Any], tuple[bool, bool, bool]]] = [
    ({"model_type": "ernie4_5"}, (False, False, False)),
    ({"model_type": "ernie4_5", "use_bias": True}, (True, True, True)),
    ({"model_type": "glm"}, (True, False, False)),
    ({"model_type": "glm4", "attention_bias": False}, (False, False, False)),
    ({"model_type": "llama"}, (False, False, False)),
    ({"model_type": "llama", "attention_bias": True}, (True, True, False)),
    ({"model_type": "llama", "mlp_bias": True}, (False, False, True)),
    ({"model_type": "mistral"}, (False, False, False)),
    ({"model_type": "qwen2"}, (True, False, False)),
    ({"model_type": "qwen3", "attention_bias": True}, (True, True, False)),
    ({"model_type": "seed_oss"}, (True, False, False)),
    ({"model_type": "seed_oss", "attention_out_bias": True}, (True, True, False)),
]


@pytest.mark.parametrize(("values", "biases"), BIASES, ids=str)
def test_biases(values: dict[str, Any], biases: tuple[bool, bool, bool], tmp_path: Path) -> None:
    config = decoder_config(_from_json(tmp_path, **values))
    assert (config.attention.bias, config.attention.output_bias, config.mlp_bias) == biases


def test_file_names_are_model_types() -> None:
    modules = {target.partition(":")[0].rpartition(".")[2] for target in ARCHITECTURES.values()}
    assert modules == set(FAMILIES) == {values["model_type"] for values, _ in BIASES}


def test_values_without_effect_pass() -> None:
    neutral = {
        **{"hidden_act": "swish", "pretraining_tp": None, "embedding_multiplier": 1.0},
        **{"logit_scale": 1, "attention_bias": None, "layer_types": ["full_attention"] * 2},
    }
    scaling = {"type": "linear", "factor": 2.0, "finetuned": True}
    expected = decoder_config(_old_config(rope_scaling={"type": "linear", "factor": 2.0}))
    assert decoder_config(_old_config(**neutral, rope_scaling=scaling)) == expected


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_act", "gelu"),
        ("pretraining_tp", 2),
        ("attention_out_bias", True),
        ("use_bias", True),
        ("embedding_multiplier", 12.0),
        ("attention_multiplier", 0.0078),
        ("residual_multiplier", 0.22),
        ("logits_scaling", 8.0),
        ("logit_scale", 0.0625),
        ("scale_emb", 12),
        ("scale_depth", 1.4),
        ("final_logit_softcapping", 30.0),
        ("attn_logit_softcapping", 50.0),
        ("query_pre_attn_scalar", 256),
        ("clip_qkv", 8.0),
        ("no_rope_layers", [1, 0]),
        ("is_causal", False),
        ("use_bidirectional_attention", True),
        ("alibi", True),
        ("use_qk_norm", True),
        ("use_parallel_residual", True),
        ("attention_chunk_size", 8192),
        ("attn_temperature_tuning", True),
        ("llama_4_scaling", {"beta": 0.1}),
    ],
)
def test_values_that_are_not_implemented_are_named(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{field}=.* is not supported for model type llama"):
        decoder_config(_old_config(**{field: value}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "gemma"}, r"model_type='gemma' is not supported; supported: ernie4_5, glm"),
        (
            {"model_type": "mistral", "attention_bias": True},
            "attention_bias=True is not supported for model type mistral; supported: False",
        ),
        (
            {"model_type": "qwen2", "attention_bias": False},
            "attention_bias=False is not supported for model type qwen2; supported: True",
        ),
        ({"attention_bias": "yes"}, "attention_bias='yes' is not supported"),
        ({"layer_types": ["linear_attention"]}, "layer_types='linear_attention' is not supported"),
        ({"num_key_value_heads": 3}, "num_attention_heads=4 is not a multiple"),
        ({"hidden_size": 66}, "hidden_size=66 is not a multiple of num_attention_heads=4"),
        ({"hidden_size": "64"}, "hidden_size='64' must be a positive integer"),
        ({"head_dim": 15}, "head_dim=15 must be even"),
        ({"head_dim": 0}, "head_dim=0 must be a positive integer"),
        ({"vocab_size": None}, "vocab_size=None must be a positive integer"),
        ({"intermediate_size": [128, 256]}, r"intermediate_size=\[128, 256\] must be a positive"),
        ({"num_hidden_layers": True}, "num_hidden_layers=True must be a positive integer"),
        ({"max_position_embeddings": 2.5}, "max_position_embeddings=2.5 must be a positive"),
        ({"rms_norm_eps": None}, "rms_norm_eps=None must be a number"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps=nan must be a number"),
        ({"rope_theta": None}, "rope_theta=None .* must be a number"),
        ({"rope_scaling": {"rope_type": "linear"}}, "'linear' lacks factor"),
        ({"rope_scaling": {"type": "su"}}, "rope type 'su' is not supported"),
        (
            {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}},
            r"rope_parameters\['full_attention'\]=.* supported: one set for all layers",
        ),
        ({"partial_rotary_factor": 0.47}, "= 7 must be even"),
        ({"partial_rotary_factor": 1.5}, "partial_rotary_factor=1.5 must be above 0 and at most 1"),
        ({"partial_rotary_factor": 0.0}, "partial_rotary_factor=0.0 must be above 0"),
    ],
)
def test_values_that_do_not_work_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decoder_config(_old_config(**values))


def test_the_front_end_refuses_before_a_worker_starts(tiny_model: Path) -> None:
    arguments = EngineArgs(model=str(tiny_model), hf_overrides={"logit_scale": 0.5})
    with pytest.raises(ValueError, match=r"logit_scale=0.5 is not supported for model type qwen3"):
        arguments.create_engine_config()


def test_a_rank_has_its_part_of_heads_block_and_vocabulary() -> None:
    whole = decoder_config(_old_config())
    assert whole.of_rank(Rank(0, 1)) == whole
    part = whole.of_rank(Rank(1, 2))
    assert (part.attention.num_heads, part.attention.num_kv_heads) == (2, 1)
    assert (part.intermediate_size, part.vocab_size, part.hidden_size) == (64, 64, 64)
    shared = whole.of_rank(Rank(3, 4)).attention
    assert (shared.num_heads, shared.num_kv_heads) == (1, 1)


@pytest.mark.parametrize(
    ("changes", "count", "expected"),
    [
        ({}, 3, "num_attention_heads=4 .* 3 ranks .* possible here: 1, 2, 4"),
        (
            {"num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 8},
            2,
            "num_key_value_heads=3 .* possible here: 1$",
        ),
        ({"intermediate_size": 126}, 4, "intermediate_size=126 .* possible here: 1, 2$"),
    ],
)
def test_what_ranks_do_not_divide_is_named(
    changes: dict[str, int], count: int, expected: str
) -> None:
    with pytest.raises(ValueError, match=expected):
        decoder_config(_old_config(**changes)).of_rank(Rank(0, count))
