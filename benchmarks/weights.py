"""What weights in 8 and 4 bits gain and lose while answering.

    python -m benchmarks.weights [--only speed|loss] [--streams 1,4,8,32] [--of starter tune random]

Speed: the engine's steps in this process, as in benchmarks/serving_step.py, the formats in turns.
Loss: held-out text (pages of `docs`), forced token by token as parity forces it, behind a prompt of
its first words; printed are nats a token, and for few bits what they add and the mean KL divergence
from bf16. For the starter, for a full-weight tune of it (which the engine serves as trained, and
which is put in few bits here to see why), and for random weights, which never were in few bits.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
from pathlib import Path

import torch
from benchmarks.serving_step import STARTER, Stepping
from torch.nn import functional

from afina.model.base import LoadedBase, describe, load_base
from afina.serving.adapters import AdapterBank
from afina.serving.blocks import BlockAllocator
from afina.serving.cache import KvCache
from afina.serving.runner import Runner
from afina.serving.scheduler import Limits, Scheduler
from afina.serving.sequences import Prompt, Sequence
from afina.serving.small_weights import Bits
from afina.text.tokenizer import ChatTokenizer

FORMATS: tuple[tuple[str, Bits | None], ...] = (("bf16", None), ("int8", 8), ("int4", 4))
PROMPT_TOKENS, TEXT_TOKENS, TEXTS = 16, 112, 12
ROUNDS, STEPS = 5, 16
LEARNING_STEPS, LEARNING_RATE = 8, 5e-5
DOCS = Path(__file__).parent.parent / "docs"


def speed(folder: Path, streams: list[int]) -> None:
    """Tokens a second by streams and format: the median of rounds, and the rounds' range."""
    print(f"{'streams':<8}" + "".join(f"{name + ' tokens/s':>24}" for name, _ in FORMATS))
    for count in streams:
        stepping = {name: Stepping(folder, count, 0, bits) for name, bits in FORMATS}
        for one in stepping.values():
            while not one.all_decode:
                one.step()
            for _ in range(5):
                one.step()
        rates: dict[str, list[float]] = {name: [] for name in stepping}
        for _ in range(ROUNDS):
            for name, one in stepping.items():
                rates[name].append(count / statistics.median(one.step() for _ in range(STEPS)))
        cells = [
            f"{statistics.median(found):.0f} ({min(found):.0f}–{max(found):.0f})"
            for found in rates.values()
        ]
        print(f"{count:<8}" + "".join(f"{cell:>24}" for cell in cells), flush=True)


def loss(kind: str, base: LoadedBase, texts: list[list[int]]) -> None:
    """One line a format."""
    forced = torch.tensor([token for ids in texts for token in ids[PROMPT_TOKENS:]])
    told: list[tuple[torch.Tensor, float]] = []
    for name, bits in FORMATS:
        # the engine takes a network apart
        fresh = describe(copy.deepcopy(base.model), "bf16")
        found = scored(fresh, bits, texts)
        nats = -float(found.gather(1, forced[:, None]).mean())
        told.append((found, nats))
        line = f"{kind:<26}{name:<6}{nats:>8.4f} nats a token"
        if bits is None:
            print(f"{line}, {len(forced)} tokens", flush=True)
            continue
        whole, plain = told[0]
        kl = float((whole.exp() * (whole - found)).sum(-1).mean())
        same = float((whole.argmax(-1) == found.argmax(-1)).float().mean())
        print(f"{line} ({nats - plain:+.4f}), mean KL {kl:.1e}, same choice {same:.1%}", flush=True)


def scored(base: LoadedBase, bits: Bits | None, texts: list[list[int]]) -> torch.Tensor:
    """Log-probabilities `[tokens, V]` of what follows the prompts, as the engine decodes it."""
    blocks = 1024
    runner = Runner(base, KvCache(base.layers, blocks, 16), AdapterBank(1), None, bits)
    scheduler = Scheduler(BlockAllocator(blocks, 16), Limits(len(texts), len(texts), 1))
    rows: dict[str, list[torch.Tensor]] = {}
    for number, ids in enumerate(texts):
        prompt = Prompt(f"text-{number}", ids[:PROMPT_TOKENS])
        prompt.sequences = [Sequence(prompt, 0, len(ids) - PROMPT_TOKENS)]
        scheduler.submit(prompt)
        rows[prompt.request_id] = []
    while not scheduler.is_idle:
        plan = scheduler.plan()
        out = runner.run(plan)
        for chunk in plan.chunks:
            scheduler.computed(chunk)
        for sequence, logits in zip(out.sequences, out.logits, strict=True):
            name = sequence.prompt.request_id
            rows[name].append(logits.float().log_softmax(-1))
            ids = texts[int(name.removeprefix("text-"))]
            scheduler.sampled(sequence, ids[PROMPT_TOKENS + len(sequence.tokens)])
            if len(sequence.tokens) == sequence.max_tokens:
                scheduler.finish(sequence)
    return torch.cat([torch.stack(found) for found in rows.values()])


def tuned(folder: Path, texts: list[list[int]]) -> LoadedBase:
    """The network in `folder`, all of its weights tuned on `texts` for a few steps."""
    model = load_base(folder, "fp32", attn_implementation="sdpa").model
    model.requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    for step in range(LEARNING_STEPS):
        ids = torch.tensor([texts[(4 * step + row) % len(texts)] for row in range(4)])
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits
        functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    base = load_base(folder, "bf16")
    base.model.load_state_dict(model.state_dict())
    return base


def randomised(folder: Path) -> LoadedBase:
    """A small network of the same make with random weights."""
    from transformers import AutoModelForCausalLM

    from afina.model.attention import NAME

    config = load_base(folder, "bf16").model.config
    config.num_hidden_layers, config.tie_word_embeddings = 4, True
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=NAME)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=1.5 / parameter.shape[1] ** 0.5)
    return describe(model.to(torch.bfloat16).requires_grad_(False).eval(), "bf16")


def pages(tokenizer: ChatTokenizer, names: tuple[str, ...]) -> list[list[int]]:
    """Texts of one length from pages of `docs`."""
    text = "\n".join((DOCS / f"{name}.md").read_text(encoding="utf-8") for name in names)
    ids = tokenizer.encode(text)
    size = PROMPT_TOKENS + TEXT_TOKENS
    return [ids[at : at + size] for at in range(0, len(ids) - size + 1, size)][:TEXTS]


def main() -> None:
    """Reads the command line, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=STARTER)
    parser.add_argument("--only", choices=["speed", "loss"])
    parser.add_argument("--streams", default="1,4,8,32")
    kinds = ["starter", "tune", "random"]
    parser.add_argument("--of", nargs="*", default=kinds, choices=kinds)
    given = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    if given.only != "loss":
        speed(given.model, [int(part) for part in given.streams.split(",")])
    if given.only != "speed":
        tokenizer = ChatTokenizer.load(given.model)
        held_out = pages(tokenizer, ("data", "methods"))
        if "starter" in given.of:
            loss(given.model.name, load_base(given.model, "bf16"), held_out)
        if "tune" in given.of:
            learned = pages(tokenizer, ("map", "engine"))
            loss("a full-weight tune of it", tuned(given.model, learned), held_out)
        if "random" in given.of:
            loss("random weights, 4 layers", randomised(given.model), held_out)


if __name__ == "__main__":
    main()
