"""What a task of `benchmarks/quality.py` is: rows to learn from, held-out rows, and a judge.

Every arm gets the same chats. A base model may be told the instructions and shown examples; a
tuned model is asked with the plain prompt, as it was trained.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).parent / "quality_data"

Chat = list[dict[str, str]]


@dataclass(frozen=True)
class Row:
    """A question and the answer that is wanted; empty where a judge needs none."""

    question: str
    answer: str = ""


Judge = Callable[[Sequence[Row], Sequence[str]], Mapping[str, float]]


@dataclass(frozen=True)
class Task:
    """A small task. `judge` gives measures from 0 to 1, the one that decides first."""

    name: str
    rows: tuple[Row, ...]
    held_out: tuple[Row, ...]
    judge: Judge
    instructions: str
    """What a user would write into the prompt of a model that was not tuned."""
    system: str = ""
    """The plain prompt's system message; without one the template says what it always says."""
    shots: int = 4
    """Examples in the prompt of the base model."""
    max_tokens: int = 80

    def chat(self, row: Row) -> Chat:
        """The plain prompt."""
        return [*_said("system", self.system), {"role": "user", "content": row.question}]

    def training_chat(self, row: Row) -> Chat:
        """A row of the training file."""
        return [*self.chat(row), {"role": "assistant", "content": row.answer}]

    def prompted_chat(self, row: Row, seed: int) -> Chat:
        """The instructions, examples as earlier turns, then the question."""
        turns: Chat = []
        for example in self.examples(seed):
            turns.append({"role": "user", "content": example.question})
            turns.append({"role": "assistant", "content": example.answer})
        return [*_said("system", self.instructions), *turns, *self.chat(row)[-1:]]

    def examples(self, seed: int) -> list[Row]:
        """Training rows for the prompt: drawn by seed, answers as different as there are."""
        rows = list(self.rows)
        random.Random(seed).shuffle(rows)
        fresh: list[Row] = []
        again: list[Row] = []
        met: set[str] = set()
        for row in rows:
            (again if row.answer in met else fresh).append(row)
            met.add(row.answer)
        return [*fresh, *again][: self.shots]

    def file(self) -> bytes:
        """The training file as a user uploads it."""
        lines = [{"messages": self.training_chat(row)} for row in self.rows]
        return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()

    @property
    def sha256(self) -> str:
        """Of all that an answer depends on besides the model."""
        parts = [self.file().decode(), self.instructions, self.system, self.shots, self.max_tokens]
        asked = [[row.question, row.answer] for row in self.held_out]
        return hashlib.sha256(json.dumps([parts, asked]).encode()).hexdigest()


def _said(role: str, content: str) -> Chat:
    return [{"role": role, "content": content}] if content else []


def table(name: str) -> list[dict[str, str]]:
    """The rows of one of the files beside this module: tab-separated, no quoting."""
    lines = (DATA / name).read_text(encoding="utf-8").splitlines()
    head = lines[0].split("\t")
    return [dict(zip(head, line.split("\t"), strict=True)) for line in lines[1:]]


def share(flags: Sequence[bool]) -> float:
    """The share of true ones, 0 to 1."""
    return sum(flags) / max(1, len(flags))
