# SPDX-License-Identifier: Apache-2.0
"""Golden Stick's configuration of post-training quantization: its names, defaults and checks.

Importing this imports no MindSpore; a PTQConfig has MindSpore's dtypes as defaults.
"""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any

from vllm_mindspore.quantization.description import GROUP_SIZES
from vllm_mindspore.quantization.ptq.smoothing import ALPHA, ALPHA_GRID

INT8, INT4 = "int8", "int4"


class PTQMode(enum.Enum):
    """Whether a network is quantized or run."""

    QUANTIZE = "quantize"
    DEPLOY = "deploy"


class BackendTarget(enum.Enum):
    """For what the result is stored."""

    NONE = "none"
    ASCEND = "ascend"


class OutliersSuppressionType(enum.Enum):
    """What is done about outliers of activations."""

    SMOOTH = "smooth"
    AWQ = "awq"
    OUTLIER_SUPPRESSION_PLUS = "outlier-suppression+"
    OUTLIER_SUPPRESSION_LITE = "outlier-suppression-lite"
    NONE = "none"

    @classmethod
    def from_str(cls, name: str) -> OutliersSuppressionType:
        """The member of that value; NONE for an unknown one."""
        return next((member for member in cls if member.value == name.lower()), cls.NONE)


class PrecisionRecovery(enum.Enum):
    """What is done about rounding errors of weights."""

    GPTQ = "gptq"
    NONE = "none"

    @classmethod
    def from_str(cls, name: str) -> PrecisionRecovery:
        """The member of that value; NONE for an unknown one."""
        return next((member for member in cls if member.value == name.lower()), cls.NONE)


class QuantGranularity(enum.Enum):
    """What shares a scale."""

    PER_TENSOR = "per_tensor"
    PER_CHANNEL = "per_channel"
    PER_TOKEN = "per_token"
    PER_GROUP = "per_group"

    @classmethod
    def from_str(cls, name: str) -> QuantGranularity | None:
        """The member of that value; None for an unknown one."""
        return next((member for member in cls if member.value == name.lower()), None)


@dataclass
class SmoothQuantConfig:
    """algo_args of SMOOTH."""

    alpha: float = ALPHA


@dataclass
class AWQConfig:
    """algo_args of AWQ."""

    duo_scaling: bool = True
    smooth_alpha: list[float] = field(default_factory=lambda: list(ALPHA_GRID))
    weight_clip_ratio: list[float] = field(default_factory=lambda: [1 - i / 20 for i in range(10)])


@dataclass
class GPTQQuantConfig:
    """algo_args of GPTQ."""

    block_size: int = 128
    desc_act: bool = False
    damp_percent: float = 0.01
    static_groups: bool = False


def _int8() -> Any:
    from mindspore import dtype

    return dtype.int8


@dataclass
class PTQConfig:
    """How linear layers are quantized. dtypes are MindSpore's, or their names.

    Raises:
        ValueError: a value that is unknown or does not go with another; names both.
    """

    mode: PTQMode = PTQMode.QUANTIZE
    backend: BackendTarget = BackendTarget.ASCEND
    opname_blacklist: list[str] = field(default_factory=list)
    algo_args: Any = field(default_factory=dict)
    weight_quant_dtype: Any = field(default_factory=_int8)
    kvcache_quant_dtype: Any = None
    act_quant_dtype: Any = None
    precision_recovery: PrecisionRecovery = PrecisionRecovery.NONE
    outliers_suppression: OutliersSuppressionType = OutliersSuppressionType.NONE
    weight_quant_granularity: QuantGranularity = QuantGranularity.PER_CHANNEL
    kvcache_quant_granularity: QuantGranularity = QuantGranularity.PER_CHANNEL
    act_quant_granularity: QuantGranularity = QuantGranularity.PER_TENSOR
    group_size: int = 0
    weight_clip: bool = False

    def __post_init__(self) -> None:
        if is_dataclass(self.algo_args) and not isinstance(self.algo_args, type):
            self.algo_args = asdict(self.algo_args)
        self._check_types()
        self._check_dtypes()
        self._check_granularities()
        self._check_groups()
        self._check_int4_with_activations()

    @property
    def weight(self) -> str | None:
        """INT8, INT4 or None."""
        return dtype_name(self.weight_quant_dtype)

    @property
    def activation(self) -> str | None:
        """INT8 or None."""
        return dtype_name(self.act_quant_dtype)

    @property
    def kvcache(self) -> str | None:
        """INT8 or None."""
        return dtype_name(self.kvcache_quant_dtype)

    def _check_types(self) -> None:
        kinds: dict[str, type] = {
            "mode": PTQMode,
            "backend": BackendTarget,
            "opname_blacklist": list,
            "algo_args": dict,
            "precision_recovery": PrecisionRecovery,
            "outliers_suppression": OutliersSuppressionType,
            "weight_quant_granularity": QuantGranularity,
            "kvcache_quant_granularity": QuantGranularity,
            "act_quant_granularity": QuantGranularity,
            "group_size": int,
            "weight_clip": bool,
        }
        for name, kind in kinds.items():
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise ValueError(f"PTQConfig: {name}={value!r}: expected a {kind.__name__}")

    def _check_dtypes(self) -> None:
        _check_among("weight_quant_dtype", self.weight, (INT8, INT4, None))
        _check_among("act_quant_dtype", self.activation, (INT8, None))
        _check_among("kvcache_quant_dtype", self.kvcache, (INT8, None))

    def _check_granularities(self) -> None:
        of = QuantGranularity
        activation = self.act_quant_granularity
        _check_among("act_quant_granularity", activation, (of.PER_TENSOR, of.PER_TOKEN))
        weight = self.weight_quant_granularity
        _check_among("weight_quant_granularity", weight, (of.PER_CHANNEL, of.PER_GROUP))
        cache = self.kvcache_quant_granularity
        _check_among("kvcache_quant_granularity", cache, (of.PER_CHANNEL, of.PER_TOKEN))
        if activation is of.PER_TOKEN and (self.activation is None or self.weight is None):
            raise ValueError(
                "PTQConfig: act_quant_granularity=PER_TOKEN needs act_quant_dtype=int8 and a "
                f"weight_quant_dtype, found {self.activation} and {self.weight}"
            )
        if cache is of.PER_TOKEN and self.kvcache is None:
            raise ValueError(
                "PTQConfig: kvcache_quant_granularity=PER_TOKEN needs kvcache_quant_dtype=int8"
            )

    def _check_groups(self) -> None:
        grouped = self.weight_quant_granularity is QuantGranularity.PER_GROUP
        if grouped and self.group_size not in GROUP_SIZES:
            raise ValueError(
                f"PTQConfig: group_size={self.group_size}: PER_GROUP weights need one of "
                f"{', '.join(map(str, GROUP_SIZES))}"
            )
        if not grouped and self.group_size:
            raise ValueError(
                f"PTQConfig: group_size={self.group_size} needs weight_quant_granularity=PER_GROUP"
            )
        if grouped and self.weight == INT8 and self.activation == INT8:
            raise ValueError("PTQConfig: int8 activations with int8 weights need PER_CHANNEL ones")

    def _check_int4_with_activations(self) -> None:
        if self.weight != INT4 or self.activation is None:
            return
        ordered = self.algo_args.get("desc_act") and self.algo_args.get("static_groups")
        recovered = self.precision_recovery is PrecisionRecovery.GPTQ and ordered
        if not recovered or self.act_quant_granularity is not QuantGranularity.PER_TOKEN:
            raise ValueError(
                "PTQConfig: int8 activations with int4 weights need PER_TOKEN activations, "
                "precision_recovery=GPTQ and GPTQQuantConfig(desc_act=True, static_groups=True)"
            )


def dtype_name(dtype: Any) -> str | None:
    """The name of a dtype of MindSpore in lower case, None for None."""
    # MindSpore prints qint4x2 as Int4.
    return None if dtype is None else str(dtype).lower().replace("qint4x2", "int4")


def _check_among(name: str, value: object, expected: tuple[object, ...]) -> None:
    if value not in expected:
        shown = ", ".join(getattr(entry, "name", str(entry)) for entry in expected)
        found = getattr(value, "name", value)
        raise ValueError(f"PTQConfig: {name}={found}: expected one of {shown}")
