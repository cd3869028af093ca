# SPDX-License-Identifier: Apache-2.0
"""A layer quantized as Golden Stick 1.4.1 quantized it: the same network, data and tensors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from tests.quantization.ptq.toy_network import ToyNetwork, groups, written
from vllm_mindspore.quantization.description import DYNAMIC, STATIC, Tool
from vllm_mindspore.quantization.ptq import layer_quantizer
from vllm_mindspore.quantization.ptq.layer_quantizer import LayerQuantizer, Quantized
from vllm_mindspore.quantization.ptq.policy import FLOAT_POLICY, Policy, Suppression, policy
from vllm_mindspore.quantization.ptq.smoothing import ALPHA, ALPHA_GRID

NONE = policy(STATIC, Suppression.NONE)
PER_TOKEN = policy(DYNAMIC, Suppression.NONE)
# What its own search chose, of the inputs of q, k, v, of gate, up and of down, by layer.
OSL = [(0.85, 0.95, 0.75), (0.9, 0.7, 0.8)]


def smooth(alpha: float) -> Policy:
    return Policy(STATIC, Suppression.SMOOTH, (alpha,))


def policies(*kinds: tuple[Policy, Policy, Policy]) -> dict[str, Policy]:
    """For each layer those of q, k, v, of gate, up and of down."""
    found = {}
    for index, (qkv, gate_up, down) in enumerate(kinds):
        for group, chosen in zip(groups(index), (qkv, NONE, gate_up, down), strict=True):
            found |= dict.fromkeys(group.names, chosen)
    return found


def quantize(chosen: Mapping[str, Policy], tool: Tool = Tool.GOLDEN_STICK) -> list[Quantized]:
    network = ToyNetwork()
    quantizer = LayerQuantizer(chosen, tool, torch.float32)
    hidden, found = network.hidden, []
    for index, layer in enumerate(network.layers):
        seen, calibrated = layer_quantizer.observe(layer, groups(index), hidden, chosen)
        hidden = [(part.batch, part.output) for part in calibrated]
        found.append(quantizer.quantize(layer, groups(index), seen, calibrated))
    return found


MADE_WITH = {
    "none": policies(*[(NONE, NONE, PER_TOKEN)] * 2),
    "smooth": policies(*[(smooth(0.5), smooth(0.5), PER_TOKEN)] * 2),
    "osl": policies(*[(smooth(a), smooth(b), smooth(c)) for a, b, c in OSL]),
}


@pytest.mark.parametrize("kind", MADE_WITH)
def test_the_tensors_are_those_of_golden_stick(kind: str) -> None:
    expected = written(kind)
    compared = 0
    for part in quantize(MADE_WITH[kind]):
        for name, values in part.floats.items():
            np.testing.assert_allclose(values, expected[name], rtol=2e-6)
        for module, tensors in part.linears.items():
            for last, found in tensors.items():
                wanted = expected[f"{module}.{last}"]
                assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape), (module, last)
                compared += 1
                if last == "weight":  # a last bit of a factor may turn a tie
                    off = np.abs(found.astype(int) - wanted.astype(int))
                    assert off.max() <= 1
                    assert off.mean() < 1e-3
                elif last == "quant_bias":  # of such codes
                    np.testing.assert_allclose(found, wanted, atol=16)
                else:
                    np.testing.assert_allclose(found, wanted, rtol=2e-6)
    assert compared == len([name for name in expected if "_proj." in name])


def test_a_search_finds_the_least_error() -> None:
    """Of the layer's output, computed anew with torch's own fake quantization."""
    osl = policy(STATIC, Suppression.OSL)
    reports = quantize(policies((osl, NONE, NONE), (osl, NONE, NONE)))[0].reports
    chosen = {report.name.rpartition(".")[2]: report.alpha for report in reports}
    assert chosen["o_proj"] is None
    network = ToyNetwork()
    losses = {alpha: loss_of_first_input(network, alpha) for alpha in ALPHA_GRID}
    best = min(losses, key=lambda alpha: losses[alpha])
    assert chosen["q_proj"] == chosen["k_proj"] == chosen["v_proj"] == best
    assert best not in (ALPHA_GRID[0], ALPHA)


def loss_of_first_input(network: ToyNetwork, alpha: float) -> float:
    layer, group = network.layers[0], groups(0)[0]
    hidden = torch.from_numpy(np.concatenate([values for _, values in network.hidden]))
    x = hidden / (hidden.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    batch = network.hidden[0][0]
    exact = layer.run(hidden.numpy(), batch)
    weights = [torch.from_numpy(layer.arrays[f"{name}.weight"]) for name in group.names]
    s = x.abs().amax(0) ** alpha / torch.cat(weights).abs().amax(0) ** (1 - alpha)
    scale = float((x / s).max() - (x / s).min()) / 255
    zero = round(-128 - float((x / s).min()) / scale)
    seen = torch.fake_quantize_per_tensor_affine(x / s, scale, zero, -128, 127) * s
    kept = dict(layer.arrays)
    for name, weight in zip(group.names, weights, strict=True):
        steps = (weight * s).abs().amax(1) * 2 / 255
        zeros = torch.zeros(len(steps), dtype=torch.int32)
        codes = torch.fake_quantize_per_channel_affine(weight * s, steps, zeros, 0, -128, 127)
        layer.arrays[f"{name}.weight"] = (codes / s).numpy()
    layer.on_input = lambda names, _: seen.numpy() if names == group.names else None
    found = layer.run(hidden.numpy(), batch)
    layer.on_input, layer.arrays = None, kept
    return float(np.square(found - exact).mean())


def test_outlier_suppression_plus_keeps_the_function() -> None:
    """Shift and factors, then beta and quant_bias, compute the float layer up to rounding."""
    shift = policy(STATIC, Suppression.OS_PLUS)
    for part in quantize(policies(*[(shift, shift, shift)] * 2)):
        for report in part.reports:
            assert report.output_sqnr_db is not None
            assert report.output_sqnr_db > 30, report.name
        shifted = [name for name, tensors in part.linears.items() if "beta" in tensors]
        assert len(shifted) == 6  # all but the output projection


def test_inputs_that_are_not_finite_are_refused() -> None:
    network = ToyNetwork()
    batch, hidden = network.hidden[0]
    hidden[3, 5] = np.inf
    with (
        np.errstate(invalid="ignore"),
        pytest.raises(ValueError, match=r"input of model.layers.0.*not finite"),
    ):
        layer_quantizer.observe(network.layers[0], groups(0), [(batch, hidden)], MADE_WITH["none"])


def test_float_layers_stay_and_lend_their_rows() -> None:
    """A float up projection takes up the factors of a quantized down projection."""
    chosen = dict.fromkeys(MADE_WITH["none"], FLOAT_POLICY)
    for index in range(2):
        chosen[f"model.layers.{index}.mlp.down_proj"] = policy(DYNAMIC, Suppression.SMOOTH)
    before = {name: v.copy() for layer in ToyNetwork().layers for name, v in layer.arrays.items()}
    for index, part in enumerate(quantize(chosen)):
        assert list(part.linears) == [f"model.layers.{index}.mlp.down_proj"]
        up = f"model.layers.{index}.mlp.up_proj.weight"
        factors = before[up] / part.floats[up]
        assert np.ptp(factors, axis=1).max() < 1e-5
        assert np.abs(factors[:, 0] - 1).max() > 0.01
        gate = f"model.layers.{index}.mlp.gate_proj.weight"
        np.testing.assert_array_equal(before[gate], part.floats[gate])
