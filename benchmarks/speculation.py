"""What drafts from training answers save: the same answers with and without, one stream.

    python -m benchmarks.speculation --write ROWS_FOLDER
    python -m benchmarks.speculation --data DATA --tune MANIFEST_SHA256 --rows ROWS_FOLDER

The first call writes `train.jsonl` and `held.jsonl`: letters of a shop's service, three kinds of
answer with slots for name, thing and order. Tune a model on the first (`afina jobs create`), take
its manifest's hash from `afina models show NAME --json`, and make the second call. Each prompt is
answered without and with drafts in turns, so that both see the same machine; answers must be equal
token by token. Foreign prompts have nothing to do with the rows; misled answers are held-out ones
with an index of which every third token is wrong, so that no draft stands.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from afina.domain.clock import SYSTEM_CLOCK
from afina.serving.drafts import DraftIndex
from afina.serving.journal import Journal
from afina.serving.lane import Lane
from afina.serving.library import Library
from afina.serving.metrics import EngineMetrics
from afina.serving.protocol import Delta, Generate
from afina.serving.speculation import Checked, Speculation
from afina.serving.tickets import generate_ticket
from afina.settings import Settings
from afina.text.renderer import Renderer

TOKENS = 96
THINGS: tuple[str, ...] = (
    "kettle",
    "desk lamp",
    "winter coat",
    "phone case",
    "garden hose",
    "coffee grinder",
)
THINGS += ("backpack", "bicycle lock", "rain boots", "notebook", "headphones", "blender")
NAMES: tuple[str, ...] = (
    "Ana",
    "Ben",
    "Carla",
    "Diego",
    "Eva",
    "Farid",
    "Greta",
    "Hugo",
    "Ines",
    "Jonas",
    "Kim",
)
NAMES += ("Lena",)
SYSTEM = "You answer customers of a shop by mail. Be polite and brief."
QUESTIONS = {
    "late": (
        "Hi, I am {n}. My {t} has not arrived yet, order {o}.",
        "{n} here: where is my {t}? The order is {o}.",
        "Order {o} with a {t} is late. Can you help? {n}",
    ),
    "broken": (
        "My {t} came broken, order {o}. {n}",
        "Hello, {n} writing. The {t} from order {o} does not work.",
        "The {t} I got is damaged ({o}). Regards, {n}",
    ),
    "return": (
        "I want to send back the {t} of order {o}. {n}",
        "How do I return a {t}? Order {o}, {n}.",
        "{n}: please take back my {t}, order {o}.",
    ),
}
BEGIN = "Dear {n},\nthank you for writing to us. "
END = "\nKind regards,\nYour service team"
ANSWERS = {
    "late": "We are sorry that your {t} is late. Order {o} left our warehouse and should reach "
    "you within three working days. If it does not arrive by then, answer this message and we will "
    "send you a new one free of charge.",
    "broken": "We are sorry that your {t} arrived damaged. We have opened a case for order {o} and "
    "will send you a replacement today. Please keep the damaged item for fourteen days, since our "
    "courier may collect it.",
    "return": "You can return your {t} within thirty days. Print the label that we have sent you "
    "for order {o}, put it on the parcel and hand it in at any post office. You get your money "
    "back within five working days after the parcel has reached us.",
}
FOREIGN = (
    "Explain how a bicycle stays upright.",
    "Write a short poem about the sea.",
    "What is the difference between a virus and a bacterium?",
    "List five mountains and where they are.",
    "How does a refrigerator work?",
    "Tell me a story about a fox and a crow.",
)


def write_rows(folder: Path) -> None:
    """120 rows to tune on and 40 of the same kind that are not."""
    source = random.Random(7)
    seen: set[str] = set()
    folder.mkdir(parents=True, exist_ok=True)
    for name, count in (("train", 120), ("held", 40)):
        lines: list[str] = []
        while len(lines) < count:
            kind = source.choice(list(QUESTIONS))
            slots = {"n": source.choice(NAMES), "t": source.choice(THINGS)}
            slots["o"] = str(source.randint(10_000, 99_999))
            question = source.choice(QUESTIONS[kind]).format(**slots)
            if question not in seen:
                seen.add(question)
                answer = (BEGIN + ANSWERS[kind] + END).format(**slots)
                said = (("system", SYSTEM), ("user", question), ("assistant", answer))
                messages = [{"role": role, "content": text} for role, text in said]
                lines.append(json.dumps({"messages": messages}) + "\n")
        (folder / f"{name}.jsonl").write_text("".join(lines))


@dataclass
class Run:
    """One way of answering a set of prompts."""

    tokens: list[list[int]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    steps: int = 0

    @property
    def rate(self) -> float:
        return sum(map(len, self.tokens)) / sum(self.seconds)


class Checks(EngineMetrics):
    """Writes down what became of drafts."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Checked] = []

    def checked(self, base: str, check: Checked) -> None:
        """A draft was checked."""
        super().checked(base, check)
        self.found.append(check)


class Bench:
    """A lane with a tune, and its drafts to switch on and off."""

    def __init__(self, given: argparse.Namespace, chats: Iterable[dict[str, Any]]) -> None:
        data, tune = given.data, given.tune
        self._now = time.process_time if given.processor_time else time.perf_counter
        settings = Settings.load(data=data)
        library = Library(settings, Journal(data / "benchmark.journal"), SYSTEM_CLOCK)
        manifest = library.manifest(tune)
        self.tune, self.base = tune, manifest.base_id
        self.renderer = Renderer.load(settings.models / self.base)
        self.lane: Lane = library.load_lane(self.base)
        self.lane.runner.bank.add(library.load_adapter(self.lane, tune), 0.0)
        self.lane.metrics = self.checks = Checks()
        rendered = [self.renderer.training_row(row["messages"]) for row in chats]
        rows = [(np.array(r.ids, np.int32), np.array(r.learned)) for r in rendered]
        begun = time.perf_counter()
        self.index = DraftIndex(rows)
        self.built_ms = 1000 * (time.perf_counter() - begun)
        for ids, learned in rows:
            ids[np.flatnonzero(learned)[2::3]] = 3
        self.misleading = DraftIndex(rows)
        self._asked = 0

    def answer(self, messages: list[dict[str, str]], temperature: float, run: Run) -> None:
        """Answers one chat and writes down what it took after the first token."""
        self._asked += 1
        request = Generate(
            request_id=f"r{self._asked}",
            base=self.base,
            prompt=self.renderer.prompt(messages),
            max_tokens=TOKENS,
            seed=11,
            adapter=self.tune,
            temperature=temperature,
            end_tokens=list(self.renderer.end_tokens),
            namespace=str(self._asked),  # nothing is found computed
            logprobs=0,
        )
        self.lane.submit(generate_ticket(request, self.lane))
        found: list[int] = []
        begun = None
        while not self.lane.is_idle:
            for delivery in self.lane.step():
                for line in delivery.lines:
                    if isinstance(line, Delta):
                        found += line.ids
            run.steps += begun is not None
            running = self.lane.scheduler.running
            if begun is None and running and running[0].is_decoding:
                begun = self._now()
        run.seconds.append(self._now() - (begun or self._now()))
        run.tokens.append(found)

    def compare(self, name: str, chats: list[list[dict[str, str]]], temperature: float) -> None:
        """Answers all chats both ways and prints a line."""
        plain, drafted = Run(), Run()
        self.checks.found.clear()
        drafts, none = Speculation(), Speculation()
        drafts.know(self.tune, self.misleading if name == "misled" else self.index)
        for chat in chats:
            self.lane.speculation = none
            self.answer(chat, temperature, plain)
            self.lane.speculation = drafts
            self.answer(chat, temperature, drafted)
        if plain.tokens != drafted.tokens:
            raise SystemExit(f"{name}: the answers differ")
        stood, asked = (
            sum(c.stood for c in self.checks.found),
            sum(c.drafted for c in self.checks.found),
        )
        gains = [a / b for a, b in zip(plain.seconds, drafted.seconds, strict=True) if b]
        print(
            f"{name:8} T={temperature:<4} {plain.rate:7.1f} {drafted.rate:8.1f} tokens/s  "
            f"{statistics.median(gains):.2f}x ({min(gains):.2f} to {max(gains):.2f})  "
            f"accepted {stood} of {asked} drafted  {plain.steps} -> {drafted.steps} steps",
            flush=True,
        )


def main() -> None:
    """Reads the command line, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--tune")
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--prompts", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=("train", "held", "misled", "foreign"))
    parser.add_argument("--processor-time", action="store_true", help="for a busy machine")
    given = parser.parse_args()
    if given.write is not None:
        write_rows(given.write)
        return
    torch.set_num_threads(given.threads)
    rows = {
        name: [json.loads(line) for line in (given.rows / f"{name}.jsonl").open()]
        for name in ("train", "held")
    }
    bench = Bench(given, rows["train"])
    print(f"index of {bench.index.tokens} tokens, made in {bench.built_ms:.0f} ms")
    asked = {name: [row["messages"][:-1] for row in found] for name, found in rows.items()}
    asked["misled"] = asked["held"]
    asked["foreign"] = [[{"role": "user", "content": text}] for text in FOREIGN]
    bench.answer(asked["held"][-1], 0.0, Run())  # warm
    for name, chats in asked.items():
        if given.only not in (None, name):
            continue
        for temperature in (0.0, 0.8):
            bench.compare(name, chats[: given.prompts], temperature)


if __name__ == "__main__":
    main()
