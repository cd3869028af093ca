# SPDX-License-Identifier: Apache-2.0
"""How each linear layer of a model is to be quantized, chosen and checked before any work.

Imports neither torch nor MindSpore.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vllm_mindspore.model_executor.models.config import DecoderConfig
from vllm_mindspore.model_executor.models.layout import HEAD
from vllm_mindspore.quantization.description import (
    DYNAMIC,
    FLOAT,
    GROUP_SIZES,
    SPARSE,
    STATIC,
    STATICS,
    WEIGHT_INT4,
    WEIGHT_INT8,
    Tool,
)
from vllm_mindspore.quantization.ptq.smoothing import ALPHA, ALPHA_GRID
from vllm_mindspore.quantization.ptq.sparsity import Method, Sparsity
from vllm_mindspore.quantization.ptq.structure import Group, all_groups, contains, matches

SCHEMES = {
    "w8a8": STATIC,
    "w8a8s": SPARSE,
    "w8a8-dynamic": DYNAMIC,
    "w8a16": WEIGHT_INT8,
    "w4a16": WEIGHT_INT4,
    "float": FLOAT,
}
"""What users write -> the type in a description."""


class Suppression(enum.Enum):
    """What is done about outliers of activations."""

    NONE = "none"
    SMOOTH = "smooth"
    OSL = "osl"
    OS_PLUS = "os+"


@dataclass(frozen=True)
class Policy:
    """How one linear layer is quantized.

    Attributes:
        kind: its type in the description.
        suppression: what is done about outliers of its input.
        alphas: the exponents that are tried; the one of SMOOTH.
        group_size: input channels that share a scale in W4A16, 0 for all.
        sparsity: which weights become zero in W8A8S.
    """

    kind: str
    suppression: Suppression = Suppression.NONE
    alphas: tuple[float, ...] = (ALPHA,)
    group_size: int = 0
    sparsity: Sparsity | None = None

    @property
    def needs_products(self) -> bool:
        """Whether calibration keeps the products of input channels."""
        return self.sparsity is not None and self.sparsity.method is Method.SPARSEGPT

    def __post_init__(self) -> None:
        """Raises ValueError for what does not go together."""
        method = self.suppression
        activations = self.kind in (*STATICS, DYNAMIC)
        assert (self.sparsity is not None) == (self.kind == SPARSE), "those of W8A8S have one"
        if method is not Suppression.NONE and not activations:
            raise ValueError(
                f"outlier suppression {method.value!r} is for quantized activations; {self.kind} "
                "has none: use 'none'"
            )
        if method is Suppression.OS_PLUS and self.kind == DYNAMIC:
            raise ValueError(
                f"outlier suppression 'os+' shifts the input of layers with static scales; "
                f"{self.kind} has none: use w8a8, or another method"
            )
        if self.group_size and self.kind != WEIGHT_INT4:
            raise ValueError(f"a group size of {self.group_size} is for w4a16, not {self.kind}")
        if self.group_size not in (0, *GROUP_SIZES):
            sizes = ", ".join(map(str, GROUP_SIZES))
            raise ValueError(
                f"group size {self.group_size}: expected one of {sizes}, or none for one scale per "
                "output channel"
            )
        if not self.alphas or not all(0 <= alpha <= 1 for alpha in self.alphas):
            raise ValueError(f"exponents of smoothing {self.alphas}: expected numbers from 0 to 1")


def policy(
    kind: str, suppression: Suppression, group_size: int = 0, sparsity: Sparsity | None = None
) -> Policy:
    """That of a type and a method, with the method's own exponents.

    Raises:
        ValueError: they do not go together.
    """
    searched = suppression in (Suppression.OSL, Suppression.OS_PLUS)
    alphas = ALPHA_GRID if searched else (ALPHA,)
    return Policy(kind, suppression, alphas, group_size, sparsity)


FLOAT_POLICY = Policy(FLOAT)


@dataclass(frozen=True)
class Choice:
    """What a user asks for.

    Attributes:
        default: for every layer that nothing else names.
        by_pattern: a pattern of module names -> policy; the first that matches counts.
        skip: parts of the names of modules that stay float.
        head: whether the language model's head is quantized, as `default` says; nothing is done
            about outliers of its input, which nothing before it can take up, and none of its
            weights are made zero.
        int8_cache: whether the key/value cache is to be int8.
    """

    default: Policy
    by_pattern: Mapping[str, Policy]
    skip: Sequence[str] = (HEAD,)
    head: bool = False
    int8_cache: bool = False


def resolve(config: DecoderConfig, choice: Choice) -> dict[str, Policy]:
    """Module name -> policy, for all linear layers of decoder layers and for a quantized head.

    Raises:
        ValueError: a pattern is none or matches nothing, a name to skip is nowhere, layers of one
            input differ, or nothing is left to quantize.
    """
    patterns = {_compiled(text): policy for text, policy in choice.by_pattern.items()}
    groups = all_groups(config, head=choice.head)
    names = [name for group in groups for name in group.names]
    _check_skip(choice, names)
    found: dict[str, Policy] = {}
    for name in names:
        named = [policy for pattern, policy in patterns.items() if matches(pattern, name)]
        skipped = any(contains(part, name) for part in choice.skip)
        found[name] = FLOAT_POLICY if skipped else (*named, choice.default)[0]
    if choice.head:
        kind = STATIC if found[HEAD].kind == SPARSE else found[HEAD].kind
        found[HEAD] = policy(kind, Suppression.NONE, found[HEAD].group_size)
    for pattern in patterns:
        if not any(matches(pattern, name) for name in names):
            raise ValueError(
                f"layer policy {pattern.pattern!r} matches no linear layer; the model has "
                f"{_examples(names)}"
            )
    for group in groups:
        check_group(group, found)
    if not choice.int8_cache and all(policy.kind == FLOAT for policy in found.values()):
        raise ValueError("no linear layer is left to quantize, and no int8 cache is asked for")
    return found


def check_group(group: Group, policies: Mapping[str, Policy]) -> None:
    """Refuses a group whose layers differ, or that its sizes do not allow.

    Raises:
        ValueError: names layers and policies.
    """
    first, *others = group.names
    for name in others:
        if policies[name] != policies[first]:
            raise ValueError(
                f"{first} is to be {policies[first].kind} and {name} {policies[name].kind}, or "
                "their other choices differ; they have one input and are computed together: give "
                "them the same policy"
            )
    chosen = policies[first]
    if chosen.group_size and group.in_features % chosen.group_size:
        raise ValueError(
            f"{first} has {group.in_features} input channels, no multiple of the group size "
            f"{chosen.group_size}; use a smaller one, or none"
        )
    if chosen.sparsity is not None:
        chosen.sparsity.check(first, group.in_features)
    for name, size in group.parts():
        if chosen.kind == WEIGHT_INT4 and size % 2:
            raise ValueError(f"{name} has {size} output channels; W4A16 packs an even number")


def check_tool(policies: Mapping[str, Policy], tool: Tool) -> None:
    """Raises ValueError for what a tool has no form for."""
    kinds = {policy.kind for policy in policies.values()}
    if tool is Tool.MODELSLIM and WEIGHT_INT4 in kinds:
        raise ValueError(
            "W4A16 is read but not written in ModelSlim's form; use --writer golden-stick for w4a16"
        )


def _compiled(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise ValueError(f"layer policy {text!r} is no regular expression: {error}") from error


def _check_skip(choice: Choice, names: Sequence[str]) -> None:
    for part in choice.skip:
        if choice.head and part in HEAD:
            raise ValueError(f"{part!r} is to be skipped and {HEAD} to be quantized: choose one")
        if not part or not any(contains(part, name) for name in (*names, HEAD)):
            raise ValueError(
                f"{part!r}, which is to be skipped, is part of no linear layer's name; the model "
                f"has {_examples(names)}"
            )


def _examples(names: Sequence[str]) -> str:
    shown = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in names))
    return f"{names[0]} and so on ({shown})"
