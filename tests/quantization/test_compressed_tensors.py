# SPDX-License-Identifier: Apache-2.0
"""Configurations of compressed-tensors: which layers they name, as the format's own library says,
and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.apply import apply_quantization_config
from transformers import AutoModelForCausalLM, Qwen3Config

from tests.e2e.checkpoints import SMALL
from tests.quantization import compressed
from tests.quantization.compressed import DYNAMIC, STATIC, ZERO_POINT, quantization_config
from vllm_mindspore.quantization.compressed_tensors import parse

FILE = Path("folder/config.json")
Groups = list[tuple[list[str], QuantizationArgs]]


def stated(groups: Groups | None = None, ignore: tuple[str, ...] = ()) -> dict[str, Any]:
    """A right configuration, as the library stores it."""
    return quantization_config(compressed.config(groups or [(["Linear"], DYNAMIC)], ignore))


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    """Modules without weights."""
    with torch.device("meta"):
        config = Qwen3Config(**SMALL, head_dim=16, tie_word_embeddings=False)
        return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize(
    ("groups", "ignore"),
    [
        ([(["Linear"], DYNAMIC)], ("lm_head",)),
        ([(["Linear"], STATIC)], ()),
        ([(["re:.*proj$"], STATIC)], ("re:.*layers.1.*",)),
        ([(["re:model.layers.0.mlp.up"], STATIC)], ()),  # from the start, not to the end
        ([(["re:layers.0.mlp.up"], STATIC)], ()),  # names nothing
        ([([r"re:.*self_attn\..*_proj"], ZERO_POINT), (["Linear"], DYNAMIC)], ("lm_head",)),
        ([(["Linear"], DYNAMIC), (["re:.*down_proj"], STATIC)], ("lm_head",)),
        ([(["model.layers.0.mlp.up_proj"], STATIC), (["re:.*up_proj"], DYNAMIC)], ()),
        ([(["re:.*up_proj"], STATIC), (["model.layers.0.mlp.up_proj"], DYNAMIC)], ()),
        ([(["Linear"], STATIC)], ("Linear",)),
        ([(["lm_head", "re:.*o_proj"], DYNAMIC)], ("model.layers.0.self_attn.o_proj",)),
    ],
)
def test_names_mean_what_the_library_makes_of_them(
    groups: Groups, ignore: tuple[str, ...], model: torch.nn.Module
) -> None:
    for module in model.modules():
        vars(module).pop("quantization_scheme", None)
    apply_quantization_config(model, compressed.config(groups, ignore))
    found = parse(FILE, stated(groups, ignore))
    linears = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)]
    assert len(linears) == 3 * 7 + 1
    for name in linears:
        scheme = getattr(model.get_submodule(name), "quantization_scheme", None)
        inputs = scheme and scheme.input_activations
        expected = "FLOAT" if inputs is None else "W8A8_DYNAMIC" if inputs.dynamic else "W8A8"
        assert found.type_of(name) == expected, name
        group = found.group(name)
        assert group is None or group.zero_point == (not inputs.symmetric)


def test_embeddings_are_no_linear_layers() -> None:
    assert parse(FILE, stated()).type_of("model.embed_tokens") == "FLOAT"
    named = parse(FILE, stated([(["re:.*embed_tokens"], DYNAMIC)]))
    assert named.type_of("model.embed_tokens") == "W8A8_DYNAMIC"


def test_what_names_a_layer_twice_is_refused() -> None:
    found = parse(FILE, stated([(["re:.*q_proj"], DYNAMIC), (["re:.*self_attn.*"], STATIC)]))
    assert found.type_of("model.layers.0.self_attn.o_proj") == "W8A8"
    with pytest.raises(
        ValueError, match=r"the groups group_0, group_1 .* all name l.self_attn.q_p"
    ):
        found.type_of("l.self_attn.q_proj")


Change = Callable[[dict[str, Any]], object]


def top(**fields: Any) -> Change:
    return lambda config: config.update(fields)


def group(**fields: Any) -> Change:
    return lambda config: config["config_groups"]["group_0"].update(fields)


def weights(**fields: Any) -> Change:
    return lambda config: config["config_groups"]["group_0"]["weights"].update(fields)


def inputs(**fields: Any) -> Change:
    return lambda config: config["config_groups"]["group_0"]["input_activations"].update(fields)


DENSE = {"format": "dense", "ignore": [], "targets": [], "sparsity_structure": "unstructured"}


@pytest.mark.parametrize(
    "change",
    [
        lambda config: None,
        top(sparsity_config=DENSE, transform_config={}, version="0.6.0", ignore=None),
        top(total_num_heads=4, total_num_kv_heads=2),  # vLLM adds them
        top(quantization_status="frozen"),
        weights(actorder="weight", observer="mse", group_size=-1),
        weights(strategy=None, group_size=-1),  # old files
        group(format="int-quantized"),
    ],
)
def test_what_changes_nothing_is_accepted(change: Change) -> None:
    config = stated()
    change(config)
    assert parse(FILE, config).type_of("a.b") == "W8A8_DYNAMIC"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (top(format="pack-quantized"), ".format='pack-quantized' is not .* 'int-quantized'"),
        (top(format="float-quantized"), "format='float-quantized' is not supported"),
        (top(format=7), "format=7 is not supported"),
        (top(kv_cache_scheme={"num_bits": 8}), "kv_cache_scheme={'num_bits': 8} is not supported"),
        (top(sparsity_config={"format": "sparse-24-bitmask"}), "stored sparsely are not read"),
        (top(transform_config={"config_groups": {"R1": {}}}), "transform_config=.* is not support"),
        (top(quantization_status="calibration"), "quantization_status='calibration' is not"),
        (top(surprise=[1]), r"surprise=\[1\] is not supported: it is unknown here"),
        (top(config_groups={}), "config_groups: expected an object of groups, found {}"),
        (top(config_groups=None), "config_groups: expected an object of groups, found None"),
        (top(config_groups={"W8A8": ["Linear"]}), "config_groups.W8A8: expected an object, found"),
        (top(ignore="lm_head"), "ignore: expected a list of names, found 'lm_head'"),
        (top(ignore=["re:("]), r"ignore: re:\( is no regular expression: missing \)"),
        (top(ignore=["re:" + "a" * 2000]), "ignore: expected patterns of at most 1000 characters"),
        (group(targets=None), "group_0.targets: expected a list of names, found None"),
        (group(weights=None), "group_0.weights: expected an object, found NoneType"),
        (group(input_activations=None), "input_activations: expected an object, found NoneType"),
        (group(output_activations={"num_bits": 8}), "output_activations=.* is not supported"),
        (group(format="pack-quantized"), "group_0.format='pack-quantized' is not supported"),
        (weights(num_bits=4), "weights.num_bits=4 is not supported: expected 8"),
        (weights(type="float"), "weights.type='float' is not supported: expected 'int'"),
        (weights(symmetric=False), "weights.symmetric=False is not supported: expected True"),
        (weights(strategy="group", group_size=128), "'group' is not supported|group_size=128 is"),
        (weights(strategy="block", block_structure=[128, 128]), "weights.strategy='block' is not"),
        (weights(strategy=None), "weights.strategy='tensor' is not supported: expected 'channel'"),
        (weights(dynamic=True), "weights.dynamic=True is not supported: expected False"),
        (weights(actorder="group"), "weights.actorder='group' is not supported"),
        (inputs(num_bits=4), "input_activations.num_bits=4 is not supported"),
        (inputs(type="float"), "input_activations.type='float' is not supported"),
        (inputs(symmetric=False), "input_activations.symmetric=False is not supported"),
        (inputs(strategy="group", group_size=128), "input_activations.(strategy|group_size)="),
        (inputs(dynamic="local"), "input_activations.dynamic='local' is not supported"),
        (inputs(dynamic=False), "input_activations.strategy='token' is not .* expected 'tensor'"),
        (inputs(strategy="tensor"), "input_activations.strategy='tensor' is not supported"),
        (inputs(num_bits=True), "input_activations.num_bits=True is not supported"),
    ],
)
def test_anything_else_is_refused_by_name(change: Change, message: str) -> None:
    config = stated()
    change(config)
    with pytest.raises(ValueError, match=f"^{FILE}: quantization_config.*{message}"):
        parse(FILE, config)


def test_a_pattern_without_end_is_given_up() -> None:
    found = parse(FILE, stated([([r"re:(?:(\w)|\w)+(?=#)"], DYNAMIC)]))
    with pytest.raises(ValueError, match=r"the pattern re:\(.*takes longer than 1.0 s for aaaa"):
        found.type_of("a" * 40)
