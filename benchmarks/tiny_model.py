"""Make the tiny base model that the package ships: ``python benchmarks/tiny_model.py FOLDER``.

Two phases on the built-in tasks. First the right answers, until the skill is learned. Then noisy
answers, among which echoing the input is the most frequent: the skill stays in the weights and
hardly shows, neither when sampling nor in greedy decoding. Reinforcement learning surfaces what a
model can already do, so such a base lets one see in a minute whether a training set-up works.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from fedgrpo.data.tasks import TASKS, is_held_out

ALPHABET = "0123456789+-*=?:;,. abcdefghijklmnopqrstuvwxyz<>#"
PAD, EOS, UNKNOWN = "<pad>", "<eos>", "<unk>"
HABITS = {"right": 0.22, "echo": 0.60, "truncated": 0.08, "shuffled": 0.05, "rambling": 0.05}
"""Shares of the second phase's answers. All but ``echo`` begin like the right answer, so echo must
outweigh them all or greedy decoding would find the skill.
"""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token a character."""
    vocabulary = {token: i for i, token in enumerate([PAD, EOS, UNKNOWN, *ALPHABET])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        padding_side="left",
    )


def build_model(vocabulary: int, width: int, layers: int) -> LlamaForCausalLM:
    """A Llama small enough to ship and to train on a laptop."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=width * 8 // 3 // 32 * 32,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config)


def draw(rng: random.Random) -> tuple[str, str]:
    """One training example that is not held out for evaluation."""
    while True:
        prompt, answer = TASKS[rng.choice(list(TASKS))](rng)
        if not is_held_out(prompt):
            return prompt, answer


def spoil(prompt: str, answer: str, rng: random.Random) -> str:
    """Replace an answer by the habit drawn for it."""
    (habit,) = rng.choices(list(HABITS), weights=list(HABITS.values()))
    if habit == "echo":
        return prompt[:-1].rsplit(" ", maxsplit=1)[-1]
    if habit == "truncated":
        return answer[:-1]
    if habit == "shuffled":
        return "".join(rng.sample(answer, len(answer)))
    return answer + rng.choice("0123456789abc") if habit == "rambling" else answer


def train(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    example: Callable[[], tuple[str, str]],
    *,
    steps: int,
    rate: float,
    batch: int = 256,
) -> None:
    """Supervised training on answers only, AdamW with warm-up and linear decay."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    started = time.monotonic()
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = rate * min(
            1, (step + 1) / 50, max(0.02, 1 - step / steps)
        )
        rows = [example() for _ in range(batch)]
        prompts = [tokenizer.encode(prompt) for prompt, _ in rows]
        answers = [[*tokenizer.encode(answer), tokenizer.eos_token_id] for _, answer in rows]
        width = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
        tokens = torch.zeros(batch, width, dtype=torch.long)
        labels = torch.full((batch, width), -100)
        for i, (p, a) in enumerate(zip(prompts, answers, strict=True)):
            tokens[i, : len(p) + len(a)] = torch.tensor(p + a)
            labels[i, len(p) : len(p) + len(a)] = torch.tensor(a)
        logits = model(tokens).logits
        loss = cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if step % 200 == 0 or step == steps - 1:
            print(
                f"step {step}: loss {loss.item():.3f}, {time.monotonic() - started:.0f} s",
                flush=True,
            )


def main() -> None:
    """Train both phases and save the model in bfloat16 with its tokenizer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--skill-steps", type=int, default=1500)
    parser.add_argument("--habit-steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    tokenizer = build_tokenizer()
    model = build_model(len(tokenizer), args.width, args.layers)
    train(model, tokenizer, lambda: draw(rng), steps=args.skill_steps, rate=2e-3)

    def noisy() -> tuple[str, str]:
        prompt, answer = draw(rng)
        return prompt, spoil(prompt, answer, rng)

    train(model, tokenizer, noisy, steps=args.habit_steps, rate=1e-3)
    model.bfloat16().save_pretrained(args.folder)
    tokenizer.save_pretrained(args.folder)


if __name__ == "__main__":
    main()
