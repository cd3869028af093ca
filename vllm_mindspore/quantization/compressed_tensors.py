# SPDX-License-Identifier: Apache-2.0
"""`quantization_config` of config.json as llm-compressor writes it (compressed-tensors): int8.

Imports neither torch nor MindSpore: the front end reads it too. Which layers a group means is
decided by the rules of the format: exact names before patterns ("re:" and a regular expression
that matches from the start of the name) before the class "Linear"; `ignore` before all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import regex

from vllm_mindspore.quantization.description import DYNAMIC, FLOAT, STATIC

METHOD = "compressed-tensors"
WRITER = "llm-compressor"

_PATTERN = "re:"
_LINEAR = "Linear"
_EMBEDDING = "embed_tokens"
_MATCH_SECONDS = 1.0  # a pattern of an untrusted file may take exponential time
_MAX_PATTERN = 1000

# Value of each field that changes what is computed -> what it may be here, the usual one first.
# Absent is the first.
_CONFIG: dict[str, tuple[Any, ...]] = {
    "format": ("int-quantized",),
    "quantization_status": ("compressed", "frozen", None),
    "kv_cache_scheme": (None,),
    "transform_config": (None, {}),
}
_GROUP: dict[str, tuple[Any, ...]] = {
    "output_activations": (None,),
    "format": (None, "int-quantized"),
}
_ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "num_bits": (8,),
    "type": ("int",),
    "block_structure": (None,),
}
_WEIGHTS = _ARGUMENTS | {
    "symmetric": (True,),
    "strategy": ("channel",),
    "group_size": (None, -1),
    "dynamic": (False,),
    "actorder": (None, "weight", "static"),  # orders that only calibration has used
}
_STATIC_INPUT = _ARGUMENTS | {
    "symmetric": (True, False),
    "strategy": ("tensor",),
    "group_size": (None,),
    "dynamic": (False,),
    "actorder": (None,),
}
_DYNAMIC_INPUT = _STATIC_INPUT | {
    "symmetric": (True,),
    "strategy": ("token",),
    "dynamic": (True,),
}
# Remarks, and what vLLM adds to the object it has read. `sparsity_config` and the two lists have
# checks of their own.
_REMARKS = (
    *("quant_method", "version", "global_compression_ratio", "run_compressed"),
    *("config_groups", "ignore", "sparsity_config", "total_num_heads", "total_num_kv_heads"),
)
# How scales were found; their dtype is that of their tensors.
_ARGUMENT_REMARKS = ("observer", "observer_kwargs", "scale_dtype", "zp_dtype")


@dataclass(frozen=True)
class Targets:
    """Names of modules, and patterns of them.

    Attributes:
        names: exact names, and classes.
        patterns: regular expressions.
    """

    names: frozenset[str]
    patterns: tuple[str, ...]

    def match(self, module: str) -> int | None:
        """How exactly they name `module`: 0 by its name, 1 by a pattern, 2 by its class; None
        where they do not.

        Raises ValueError for a pattern that takes too long.
        """
        if module in self.names:
            return 0
        if any(_matches(pattern, module) for pattern in self.patterns):
            return 1
        is_linear = module.rpartition(".")[2] != _EMBEDDING
        return 2 if is_linear and _LINEAR in self.names else None


@dataclass(frozen=True)
class Group:
    """Layers that are quantized alike.

    Attributes:
        name: its key in `config_groups`.
        targets: which layers.
        type: STATIC or DYNAMIC.
        zero_point: whether files hold a zero point of the input.
    """

    name: str
    targets: Targets
    type: str
    zero_point: bool


@dataclass(frozen=True)
class CompressedTensors:
    """One `quantization_config`.

    Attributes:
        file: the config.json it is in.
        groups: what layers are.
        ignore: layers that are float although a group names them.
    """

    file: Path
    groups: tuple[Group, ...]
    ignore: Targets

    @property
    def writer(self) -> str:
        """The tool's own name."""
        return WRITER

    @property
    def names(self) -> list[str]:
        """What --quantization may be."""
        return [METHOD]

    def group(self, module: str) -> Group | None:
        """That of linear layer `module`, None where it is float.

        Raises:
            ValueError: several groups name it equally exactly.
        """
        if self.ignore.match(module) is not None:
            return None
        levels = {group.name: group.targets.match(module) for group in self.groups}
        best = min((level for level in levels.values() if level is not None), default=None)
        found = [group for group in self.groups if best is not None and levels[group.name] == best]
        if len(found) > 1:
            raise ValueError(
                f"{self.file}: the groups {', '.join(group.name for group in found)} of "
                f"quantization_config all name {module}; expected one"
            )
        return found[0] if found else None

    def type_of(self, module: str) -> str:
        """FLOAT, STATIC or DYNAMIC."""
        group = self.group(module)
        return FLOAT if group is None else group.type


def parse(file: Path, config: Mapping[str, Any]) -> CompressedTensors:
    """What the `quantization_config` of `file` says.

    Raises:
        ValueError: it asks for something that is not computed here, or is broken; names the field,
            what was found and what is supported.
    """
    place = f"{file}: quantization_config"
    _check(place, config, _CONFIG, _REMARKS)
    _check_sparsity(place, config.get("sparsity_config"))
    groups = config.get("config_groups")
    if not isinstance(groups, dict) or not groups:
        raise ValueError(f"{place}.config_groups: expected an object of groups, found {groups!r}")
    return CompressedTensors(
        file,
        tuple(_group(f"{place}.config_groups.{n}", n, group) for n, group in groups.items()),
        _targets(f"{place}.ignore", config.get("ignore") or []),
    )


def _group(place: str, name: str, group: Any) -> Group:
    _check_object(place, group)
    _check(place, group, _GROUP, ("targets", "weights", "input_activations"))
    targets = _targets(f"{place}.targets", group.get("targets"))
    _check_arguments(f"{place}.weights", group.get("weights"), _WEIGHTS)
    inputs = group.get("input_activations")
    _check_object(f"{place}.input_activations", inputs)
    dynamic = inputs.get("dynamic", False)
    accepted = _STATIC_INPUT if dynamic is False else _DYNAMIC_INPUT
    _check_arguments(f"{place}.input_activations", inputs, accepted)
    zero_point = not inputs.get("symmetric", True)
    return Group(name, targets, DYNAMIC if dynamic else STATIC, zero_point)


def _check_arguments(place: str, found: Any, accepted: Mapping[str, tuple[Any, ...]]) -> None:
    _check_object(place, found)
    # Without a strategy and a size of groups there is one scale for the whole tensor.
    strategy = found.get("strategy") or ("channel" if found.get("group_size") == -1 else "tensor")
    _check(place, {**found, "strategy": strategy}, accepted, _ARGUMENT_REMARKS)


def _check(
    place: str, found: Mapping[str, Any], accepted: Mapping[str, tuple[Any, ...]], more: Any
) -> None:
    for name, value in found.items():
        if name in more:
            continue
        if name not in accepted:
            if value in (None, {}, []):
                continue
            raise ValueError(f"{place}.{name}={value!r:.200} is not supported: it is unknown here")
        text = value.lower() if isinstance(value, str) else value
        # By type as well: 1 == True.
        if not any(text == other and type(text) is type(other) for other in accepted[name]):
            expected = " or ".join(repr(other) for other in accepted[name])
            raise ValueError(
                f"{place}.{name}={value!r:.200} is not supported: expected {expected}. Quantize "
                f"the model with the scheme W8A8 of {WRITER} (int8 weights per channel)"
            )


def _check_object(place: str, found: Any) -> None:
    if not isinstance(found, dict):
        raise ValueError(
            f"{place}: expected an object, found {type(found).__name__} {found!r:.200}; weights "
            "and inputs both have to be int8"
        )


def _check_sparsity(place: str, found: Any) -> None:
    """Files of old versions state one for weights that are not stored sparsely."""
    if found and not (isinstance(found, dict) and found.get("format") == "dense"):
        raise ValueError(
            f"{place}.sparsity_config={found!r:.200} is not supported: weights stored sparsely "
            "are not read"
        )


def _targets(place: str, found: Any) -> Targets:
    if not isinstance(found, list) or not all(isinstance(target, str) for target in found):
        raise ValueError(f"{place}: expected a list of names, found {found!r:.200}")
    patterns = [target.removeprefix(_PATTERN) for target in found if target.startswith(_PATTERN)]
    for pattern in patterns:
        if len(pattern) > _MAX_PATTERN:
            raise ValueError(f"{place}: expected patterns of at most {_MAX_PATTERN} characters")
        try:
            regex.compile(pattern)
        except regex.error as error:
            raise ValueError(
                f"{place}: {_PATTERN}{pattern:.200} is no regular expression: {error}"
            ) from error
    names = frozenset(target for target in found if not target.startswith(_PATTERN))
    return Targets(names, tuple(patterns))


def _matches(pattern: str, module: str) -> bool:
    try:
        return regex.match(pattern, module, timeout=_MATCH_SECONDS) is not None
    except TimeoutError as error:
        raise ValueError(
            f"quantization_config: the pattern {_PATTERN}{pattern:.200} takes longer than "
            f"{_MATCH_SECONDS} s for {module}; name the layers"
        ) from error
