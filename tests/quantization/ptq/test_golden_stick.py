# SPDX-License-Identifier: Apache-2.0
"""The users' script for SmoothQuant on our networks, and what PTQ refuses."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mindspore import dtype as msdtype
from safetensors.torch import load_file

from vllm_mindspore.quantization import ptq as surface
from vllm_mindspore.quantization.ptq import (
    PTQ,
    BackendTarget,
    NativeNetwork,
    OutliersSuppressionType,
    PrecisionRecovery,
    PTQConfig,
    PTQMode,
    QuantGranularity,
    ceval_dataset,
    load_network,
)

ROOT = Path(__file__).resolve().parents[3]
EXAM = ROOT / "examples" / "tiny_model" / "ceval"

pytestmark = pytest.mark.usefixtures("mindspore_runtime")


def script_config() -> PTQ:
    """As the documents have it."""
    quant_mode = PTQMode.QUANTIZE
    cfg = PTQConfig(
        mode=quant_mode,
        backend=BackendTarget.ASCEND,
        weight_quant_dtype=msdtype.int8,
        act_quant_dtype=msdtype.int8,
        outliers_suppression=OutliersSuppressionType.SMOOTH,
        opname_blacklist=["lm_head"],
    )
    w2_config = PTQConfig(
        mode=quant_mode,
        backend=BackendTarget.ASCEND,
        weight_quant_dtype=msdtype.int8,
        act_quant_dtype=msdtype.int8,
        outliers_suppression=OutliersSuppressionType.NONE,
        precision_recovery=PrecisionRecovery.NONE,
        act_quant_granularity=QuantGranularity.PER_TOKEN,
        weight_quant_granularity=QuantGranularity.PER_CHANNEL,
    )
    layer_policies = OrderedDict({r".*\.w2.*": w2_config})
    return PTQ(config=cfg, layer_policies=layer_policies)


Apply = Callable[[PTQ, NativeNetwork, Any], NativeNetwork]
ORDERS: dict[str, Apply] = {
    "script": lambda ptq, network, ds: ptq.apply(network, ds),
    "1.4.1": lambda ptq, network, ds: ptq.apply(network, None, ds),
    "by name": lambda ptq, network, ds: ptq.apply(network, datasets=ds),
}


def test_the_users_script(tiny_model: Path, tmp_path: Path) -> None:
    written = []
    for name, apply in ORDERS.items():
        network = load_network(tiny_model)
        ds = ceval_dataset(EXAM, tiny_model).take(6)
        ptq = script_config()
        ptq.decoder_layer_types.append(network.decoder_layer_type)
        assert apply(ptq, network, ds) is network
        assert ptq.convert(network) is network
        ptq.save(network, tmp_path / name)
        written.append(load_file(tmp_path / name / "quant-model-00001-of-00001.safetensors"))
        lines = ptq.summary(network).splitlines()
        assert len(lines) == 28
        assert lines[0].split() == [
            "model.layers.0.self_attn.q_proj",
            "W8-per_channel-A8-per_tensor",
        ]
        assert sum(line.endswith("A8-per_token") for line in lines) == 4
    types = json.loads((tmp_path / "script" / "quantization_description.json").read_text())
    assert types["model.layers.3.mlp.down_proj.weight"] == "W8A8_DYNAMIC"
    assert types["model.layers.3.mlp.up_proj.weight"] == "W8A8"
    assert types["model.embed_tokens.weight"] == "FLOAT"
    for other in written[1:]:
        assert other.keys() == written[0].keys()
        assert all((other[name] == values).all() for name, values in written[0].items())


def test_an_int8_cache(tiny_model: Path, tmp_path: Path) -> None:
    network = load_network(tiny_model)
    ptq = PTQ(PTQConfig(weight_quant_dtype=None, kvcache_quant_dtype=msdtype.int8))
    ptq.apply(network, ceval_dataset(EXAM, tiny_model).take(2))
    ptq.save(network, tmp_path / "made")
    assert ptq.summary(network).splitlines() == ["key/value cache  C8-per_channel"]
    description = json.loads((tmp_path / "made" / "quantization_description.json").read_text())
    assert description["kv_cache_type"] == "C8"
    assert description["model.layers.0.self_attn.v_proj.kv_cache_scale"] == "C8"


def test_the_module_saves_too_and_knows_its_names(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not quantized yet"):
        surface.save(load_network(tiny_model), tmp_path / "x")
    with pytest.raises(AttributeError, match="no attribute 'RoundToNearest'"):
        _ = surface.RoundToNearest
    for name in surface.__all__:
        assert getattr(surface, name)


def test_the_networks_config_decides_mode_and_backend(caplog: pytest.LogCaptureFixture) -> None:
    other = PTQConfig(mode=PTQMode.DEPLOY)
    PTQ(PTQConfig(), OrderedDict({".*": other}))
    assert other.mode is PTQMode.QUANTIZE


def test_other_values_of_the_configuration() -> None:
    ptq = PTQ()
    ptq.set_ptq_config(act_quant_dtype=msdtype.int8)
    with pytest.raises(ValueError, match="PTQConfig has no act_dtype"):
        ptq.set_ptq_config(act_dtype=msdtype.int8)
    with pytest.raises(ValueError, match="weight_clip=True: not supported"):
        ptq.set_ptq_config(weight_clip=True)


ROWS = [{"input_ids": [1, 2, 3]}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected a dataset with a column input_ids.*found NoneType"),
        ((object(),), "expected a dataset .* found object"),
        ((object(), ROWS), "network_helper: our networks need none"),
        (([{"ids": [1]}],), "no column 'input_ids'"),
        (([{"input_ids": [5000]}],), "token ids from 5000 to 5000; the model has 2048"),
    ],
)
def test_arguments_that_are_refused(
    arguments: tuple[Any, ...], message: str, tiny_model: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        PTQ().apply(load_network(tiny_model), *arguments)


def test_what_else_is_refused_by_name(tiny_model: Path) -> None:
    network = load_network(tiny_model)
    with pytest.raises(ValueError, match="framework='mindformers'"):
        PTQ().apply(network, ROWS, framework="mindformers")
    with pytest.raises(ValueError, match=r"expected a network from ptq.load_network"):
        PTQ().apply(object(), ROWS)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="fake_quant is not supported"):
        PTQ().fake_quant(network)
    with pytest.raises(ValueError, match="not quantized yet"):
        PTQ().summary(network)
    ptq = PTQ()
    ptq.decoder_layer_types.append(dict)
    with pytest.raises(ValueError, match="dict: the network has no such layers; its own are Deco"):
        ptq.apply(network, ROWS)
    policies: OrderedDict[str, PTQConfig | None] = OrderedDict({"layers": None})
    with pytest.raises(ValueError, match="'layers' matches no linear layer"):
        PTQ(PTQConfig(), policies).apply(network, ROWS)
