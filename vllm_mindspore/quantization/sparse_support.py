# SPDX-License-Identifier: Apache-2.0
"""Which device computes compressed weights (W8A8SC) in which coding, and why others do not.

Imports no MindSpore: the front end checks a folder before a worker starts.
"""

from __future__ import annotations

from vllm_mindspore import envs
from vllm_mindspore.device.soc import Device
from vllm_mindspore.quantization.sparse_description import Layout, SparseDescription

_DECODE = f"{envs.SPARSE_DECODE.name}=1"
_NPU_CODING = (
    "are compressed for an NPU: its bit coding is not public and only the unzip unit of Atlas 300I "
    "Duo (310P) reads it, so they cannot be computed on "
)
_OTHER_NAMES = (
    "are compressed for an NPU, and its layers have other names than here, so they are computed on "
    "no device. Compress the W8A8S checkpoint that they were made of into rank_N folders"
)
_ORIGIN = "the uncompressed W8A8S checkpoint that these were made of"

# (our coding, device, decode) -> why not; what is missing is computed. {folder} and {ranks} are
# those of the checkpoint.
_REFUSALS: dict[tuple[bool, Device, bool], str] = {
    **dict.fromkeys(
        [(False, Device.CPU, False), (False, Device.CPU, True)],
        f"{_NPU_CODING}a CPU. Files for one are made of {_ORIGIN}: vllm-mindspore "
        "convert W8A8S_DIR --output DIR --tensor-parallel-size {ranks}",
    ),
    **dict.fromkeys(
        [(False, Device.ASCEND_910B, False), (False, Device.ASCEND_910B, True)],
        f"{_NPU_CODING}Atlas 800I A2 (910B). Serve {_ORIGIN} instead",
    ),
    (False, Device.ASCEND_310P, True): f"are compressed for an NPU, and {_DECODE} decodes our "
    "coding alone. Unset it: this device computes them as they are",
    (True, Device.ASCEND_310P, False): "are in our coding, which the unzip unit of Atlas 300I Duo "
    "(310P) cannot read. Convert them back to W8A8S (vllm-mindspore convert {folder} --output DIR "
    f"--to w8a8s) and compress those with the vendor's tool, or set {_DECODE}: they are then "
    "decoded when they are loaded, and computed as dense W8A8",
    (True, Device.ASCEND_910B, False): "are compressed, and Atlas 800I A2 (910B) has no kernel for "
    f"that. Set {_DECODE}: they are then decoded when they are loaded, and computed as dense W8A8",
}


def refusal(own_codec: bool, device: Device, *, decode: bool) -> str:
    """Why `device` does not compute weights in our coding or an NPU's, and what to do; empty if it
    does. `decode`: they are to be decoded when they are loaded."""
    return _REFUSALS.get((own_codec, device, decode), "")


def check(found: SparseDescription, device: Device | None, *, decode: bool) -> None:
    """That a folder can be computed. `device`: None where only a worker can say which it is.

    Raises:
        ValueError: it cannot; says why, and what to do.
    """
    reason = "" if device is None else refusal(found.own_codec, device, decode=decode)
    if found.layout is Layout.PARTS and device in (None, Device.ASCEND_310P):
        reason = _OTHER_NAMES
    if reason:
        folder = found.file.parent
        advice = reason.format(folder=folder, ranks=len(found.blocks))
        raise ValueError(f"{found.file}: the weights ({found.layout.value}) {advice}")


def devices(found: SparseDescription) -> str:
    """Those that compute a folder, for reports."""
    if found.layout is Layout.PARTS:
        return "none: its layers have other names"
    named = []
    for device in Device:
        if not refusal(found.own_codec, device, decode=False):
            named.append(device.value)
        elif not refusal(found.own_codec, device, decode=True):
            named.append(f"{device.value} with {_DECODE}")
    return ", ".join(named)
