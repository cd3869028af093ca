# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of the Qwen3-0.6B shape: random bf16 or int8 weights, a tokenizer of full size."""

from __future__ import annotations

import itertools
import json
import string
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.shapes import write_shape

if TYPE_CHECKING:
    from torch import Tensor

_WEIGHTS = "model.safetensors"
_DEVIATION = 0.02  # of the weights, Qwen3's initializer_range
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_CODES = {"num_bits": 8, "type": "int", "symmetric": True}
_INT8 = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "quantization_status": "compressed",
    "ignore": ["lm_head"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {**_CODES, "strategy": "channel", "dynamic": False},
            "input_activations": {**_CODES, "strategy": "token", "dynamic": True},
        }
    },
}
_TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "eos_token": _SPECIAL[2],
    "pad_token": _SPECIAL[0],
}


def ready_checkpoint(folder: Path, config: dict[str, Any]) -> Path:
    """Writes the checkpoint of `config` into `folder` unless it is there; returns the folder.

    The weights come last, under their name only when complete, so they mark a whole folder.
    """
    return _ready(folder, config, _random_weights)


def ready_int8_checkpoint(folder: Path, config: dict[str, Any]) -> Path:
    """The same with linear layers of int8 weights, whose inputs are quantized per token, in the
    format of compressed-tensors. Embeddings and head stay bf16."""
    return _ready(folder, config | {"quantization_config": _INT8}, _random_int8_weights)


def _ready(
    folder: Path, config: dict[str, Any], tensors: Callable[[dict[str, Any]], dict[str, Tensor]]
) -> Path:
    from safetensors.torch import save_file

    weights = folder / _WEIGHTS
    if not weights.is_file():
        print(f"writing a random checkpoint into {folder} (once) ...", flush=True)
        write_shape(folder, config)
        _write_tokenizer(folder, config["vocab_size"])
        partial = weights.with_suffix(".partial")
        save_file(tensors(config), partial, metadata={"format": "pt"})
        partial.rename(weights)
    return folder


def weight_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of a Qwen3 checkpoint with tied embeddings, by its name."""
    hidden, inner, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    query, kv = (config[f"num_{kind}_heads"] * head for kind in ("attention", "key_value"))
    layer = {
        "input_layernorm": (hidden,),
        "self_attn.q_proj": (query, hidden),
        "self_attn.k_proj": (kv, hidden),
        "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, query),
        "self_attn.q_norm": (head,),
        "self_attn.k_norm": (head,),
        "post_attention_layernorm": (hidden,),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config["vocab_size"], hidden),
        "model.norm.weight": (hidden,),
    }
    for number in range(config["num_hidden_layers"]):
        shapes |= {f"model.layers.{number}.{name}.weight": shape for name, shape in layer.items()}
    return shapes


def _random_weights(config: dict[str, Any]) -> dict[str, Tensor]:
    import torch

    generator = torch.Generator().manual_seed(0)

    def values(shape: tuple[int, ...]) -> Tensor:
        if len(shape) == 1:
            return torch.ones(shape, dtype=torch.bfloat16)
        return torch.randn(shape, generator=generator).mul_(_DEVIATION).to(torch.bfloat16)

    return {name: values(shape) for name, shape in weight_shapes(config).items()}


def _random_int8_weights(config: dict[str, Any]) -> dict[str, Tensor]:
    import torch

    found = {}
    for name, tensor in _random_weights(config).items():
        if name.removesuffix(".weight").endswith("_proj"):
            scale = tensor.abs().amax(1, keepdim=True) / 127
            found[name] = (tensor.float() / scale).round().to(torch.int8)
            found[f"{name}_scale"] = scale
        else:
            found[name] = tensor
    return found


def _write_tokenizer(folder: Path, size: int) -> None:
    """A byte-level BPE of `size` tokens: the bytes, then words of two to four letters.

    Every token is text, as in a trained tokenizer, so `vllm bench serve` can make random prompts.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    symbols = [*_SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges = list(itertools.islice(_merges(), size - len(symbols)))
    vocabulary = {
        text: number for number, text in enumerate([*symbols, *(a + b for a, b in merges)])
    }
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in _SPECIAL])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(_TOKENIZER_CONFIG))


def _merges() -> Iterator[tuple[str, str]]:
    """Pairs whose concatenations are all words of two, three and four letters, once each."""
    letters = string.ascii_lowercase
    pairs = ["".join(pair) for pair in itertools.product(letters, repeat=2)]
    yield from itertools.product(letters, letters)
    yield from itertools.product(pairs, letters)
    yield from itertools.product(pairs, pairs)
