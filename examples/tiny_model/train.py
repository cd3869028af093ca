# SPDX-License-Identifier: Apache-2.0
"""Trains the tiny Qwen3 model on the corpus, on the CPU, and writes it as a Hugging Face folder.

    python train.py CORPUS_FOLDER OUT_FOLDER [--checkpoint FILE]

Every step draws its batch from its own seed and the learning rate depends on the step alone, so a
run that was interrupted and continues from its checkpoint sees the same data as one that was not.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from corpus import SEPARATOR
from measure import exam_accuracy, read_split
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from tqdm import tqdm
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
END_OF_TEXT, _, IM_END = range(3)
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VOCABULARY = 2048
# How much of the corpus, from its beginning, batches are drawn from: (step, share), linear between.
READING = ((0, 0.02), (800, 0.02), (2600, 0.20), (3000, 1.0))
STEPS = 5600
# Exam letters are one token in 60, but the only ones that tell whether options were understood.
LETTER_WEIGHT = 5.0
# (sequences, tokens each), taken in turn: 1536 tokens per step, a third of them in long sequences
BATCH_SHAPES = ((6, 256), (3, 512), (6, 256), (6, 256), (2, 768), (6, 256))


@dataclass(frozen=True)
class Recipe:
    """What decides the result, besides the corpus."""

    steps: int
    learning_rate: float = 2e-3
    warmup_steps: int = 100
    decay_share: float = (
        0.35  # the last part of the steps, over which the rate falls linearly to zero
    )
    weight_decay: float = 0.1
    seed: int = 1

    def rate(self, step: int) -> float:
        """The learning rate of one step: warm-up, plateau, linear decay."""
        decay_steps = self.decay_share * self.steps
        return self.learning_rate * min(
            1.0, (step + 1) / self.warmup_steps, (self.steps - step) / decay_steps
        )


def train_tokenizer(documents: list[str]) -> Tokenizer:
    """A byte-level BPE with the chat markers as special tokens 0, 1 and 2."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    plain = (
        document.replace("<|im_start|>", "").replace("<|im_end|>", "") for document in documents
    )
    tokenizer.train_from_iterator(plain, trainer)
    return tokenizer


def wrap_tokenizer(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """The tokenizer as transformers saves and loads it."""
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=SPECIAL_TOKENS[END_OF_TEXT],
        pad_token=SPECIAL_TOKENS[END_OF_TEXT],
        additional_special_tokens=list(SPECIAL_TOKENS[1:]),
        model_max_length=32768,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def reading(step: int) -> float:
    """The share of the corpus that batches are drawn from at this step."""
    for (first, low), (last, high) in itertools.pairwise(READING):
        if step < last:
            return low + (high - low) * (step - first) / (last - first)
    return READING[-1][1]


def letter_weights(ids: Tensor, tokenizer: Tokenizer) -> Tensor:
    """LETTER_WEIGHT at the answer letters of exams (" A" to " D" after a colon), 1 elsewhere."""
    letters = torch.tensor([tokenizer.token_to_id(f"\u0120{letter}") for letter in "ABCD"])
    after_colon = torch.roll(ids == tokenizer.token_to_id(":"), 1)
    return torch.where(torch.isin(ids, letters) & after_colon, LETTER_WEIGHT, 1.0)


@dataclass(frozen=True)
class TokenStream:
    """All documents as one row of token ids, and where each document starts."""

    ids: Tensor
    starts: Tensor
    weights: Tensor

    @classmethod
    def encode(cls, tokenizer: Tokenizer, documents: list[str]) -> TokenStream:
        """Encode every document and end it with <|endoftext|>."""
        ids: list[int] = []
        starts: list[int] = []
        for encoding in tokenizer.encode_batch(documents):
            starts.append(len(ids))
            ids += [*encoding.ids, END_OF_TEXT]
        row = torch.tensor(ids)
        return cls(row, torch.tensor(starts), letter_weights(row, tokenizer))

    def batch(self, step: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs, next-token targets and their weights; every row begins with a document."""
        rows, length = BATCH_SHAPES[step % len(BATCH_SHAPES)]
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        last = len(self.ids) - length - 1
        usable = int((self.starts[: round(reading(step) * len(self.starts))] <= last).sum())
        begins = self.starts[torch.randint(0, usable, (rows,), generator=generator)]
        places = begins[:, None] + torch.arange(length)
        return self.ids[places], self.ids[places + 1], self.weights[places + 1]


def new_model() -> Qwen3ForCausalLM:
    """Qwen3 with 3.5 million parameters, random."""
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=32768,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        rms_norm_eps=1e-6,
        bos_token_id=END_OF_TEXT,
        eos_token_id=END_OF_TEXT,
        pad_token_id=END_OF_TEXT,
    )
    return Qwen3ForCausalLM(config).float()


def new_optimizer(model: Qwen3ForCausalLM, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98), fused=True)


def train_step(
    model: Qwen3ForCausalLM,
    optimizer: torch.optim.AdamW,
    inputs: Tensor,
    targets: Tensor,
    weights: Tensor,
) -> float:
    """One update in bf16 autocast; returns the weighted mean loss in nats per token."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=inputs, use_cache=False).logits
    losses = torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), reduction="none"
    )
    loss = (losses * weights.flatten()).sum() / weights.sum()
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


class Trainer:
    """Model, optimizer and step counter, saved together."""

    def __init__(self, stream: TokenStream, recipe: Recipe, checkpoint: Path | None) -> None:
        torch.manual_seed(recipe.seed)
        self.stream, self.recipe, self.checkpoint = stream, recipe, checkpoint
        self.model = new_model()
        self.optimizer = new_optimizer(self.model, recipe)
        self.step = 0
        if checkpoint is not None and checkpoint.exists():
            self._restore(checkpoint)

    def _restore(self, checkpoint: Path) -> None:
        state = torch.load(checkpoint)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]

    def _save(self) -> None:
        if self.checkpoint is None:
            return
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
        }
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.checkpoint)

    def run(self, until: int, report_every: int, report: Callable[[Qwen3ForCausalLM], str]) -> None:
        """Train up to the step `until`; write a report and save now and then, and at the end."""
        progress = tqdm(total=until, initial=self.step, unit="step", mininterval=10)
        while self.step < until:
            for group in self.optimizer.param_groups:
                group["lr"] = self.recipe.rate(self.step)
            batch = self.stream.batch(self.step, self.recipe.seed)
            loss = train_step(self.model, self.optimizer, *batch)
            self.step += 1
            progress.update()
            if self.step % report_every == 0 or self.step == until:
                tqdm.write(f"step {self.step} loss {loss:.3f} {report(self.model)}")
                self.model.train()
                self._save()


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write bf16 safetensors, configuration, tokenizer and generation defaults."""
    model.generation_config = GenerationConfig(
        bos_token_id=END_OF_TEXT, eos_token_id=[END_OF_TEXT, IM_END], pad_token_id=END_OF_TEXT
    )
    model.bfloat16().save_pretrained(out)
    tokenizer.save_pretrained(out)


def parse_arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path, help="folder that corpus.py wrote")
    parser.add_argument("out", type=Path, help="folder of the trained model")
    parser.add_argument("--steps", type=int, default=STEPS, help="updates of 1536 tokens each")
    parser.add_argument("--stop-at", type=int, help="save the checkpoint at this step and stop")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--report-every", type=int, default=300)
    parser.add_argument(
        "--checkpoint", type=Path, help="saved at every report; continued if it exists"
    )
    args = parser.parse_args()
    if args.stop_at is not None and args.checkpoint is None:
        parser.error("--stop-at needs --checkpoint")
    return args


def main() -> None:
    """Train, report, and write the finished model."""
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    documents = (args.corpus / "train.txt").read_text(encoding="utf-8").split(SEPARATOR)
    tokenizer = train_tokenizer(documents)
    wrapped = wrap_tokenizer(tokenizer)
    stream = TokenStream.encode(tokenizer, documents)
    trainer = Trainer(stream, Recipe(args.steps), args.checkpoint)
    parameters = sum(p.numel() for p in trainer.model.parameters())
    tqdm.write(f"{len(stream.ids)} tokens of text, {parameters} parameters")
    rows = read_split(args.corpus / "ceval", "val")[::5]
    trainer.run(
        args.steps if args.stop_at is None else args.stop_at,
        args.report_every,
        lambda model: f"exam {exam_accuracy(model, wrapped, rows):.3f}",
    )
    if trainer.step >= args.steps:
        save(trainer.model, wrapped, args.out)


if __name__ == "__main__":
    main()
