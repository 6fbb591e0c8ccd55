"""Jobs that are unlike each other, for benchmarks/estimates.py: files and what is asked for."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Any, Final

TEXT: Final = (
    "the claim was reported in time and the policy covers damage by water but not by wear so the "
    "clerk asks for the invoice a photo of the pipe and the date of the last repair before paying"
)
TEXTO: Final = (
    "el seguro cubre los daños por agua que ocurren en la cocina o en el baño según la póliza, así "
    "que pedimos la factura, una fotografía de la tubería y la fecha de la última reparación"
)
WORDS: Final = TEXT.split()
PALABRAS: Final = TEXTO.split()
SYSTEM: Final = (
    "You are a careful clerk of an insurance company. Name the clause that applies, say what is "
    "missing, never promise a payment, keep to two paragraphs, write dates as year, month and day, "
    "and end with the number of the claim. "
) * 4


@dataclass(frozen=True)
class Sort:
    """A job: `rows` chats of `turns` answers, whose questions and answers have so many words."""

    name: str
    rows: int
    asked: tuple[int, int]
    answer: tuple[int, int]
    turns: int = 1
    system: str = ""
    words: list[str] = field(default_factory=lambda: WORDS)
    hyperparameters: dict[str, int] = field(default_factory=dict)
    tuning: dict[str, Any] = field(default_factory=dict)
    """As in the extension object of a job."""
    method: str = "supervised"

    def content(self) -> bytes:
        """The file, the same each time."""
        source = random.Random(self.name)
        if self.method == "dpo":
            return self._pairs(source)

        def some(bounds: tuple[int, int]) -> str:
            return " ".join(source.choices(self.words, k=source.randint(*bounds)))

        lines = []
        for _ in range(self.rows):
            messages: list[dict[str, Any]] = []
            if self.system:
                messages.append({"role": "system", "content": self.system})
            for _ in range(self.turns):
                messages.append({"role": "user", "content": some(self.asked) + "?"})
                messages.append({"role": "assistant", "content": some(self.answer) + "."})
            lines.append(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
        return "".join(lines).encode()

    def _pairs(self, source: random.Random) -> bytes:
        def said(role: str, bounds: tuple[int, int]) -> list[dict[str, str]]:
            words = source.choices(self.words, k=source.randint(*bounds))
            return [{"role": role, "content": " ".join(words)}]

        rows = (
            {
                "input": {"messages": said("user", self.asked)},
                "preferred_output": said("assistant", self.answer),
                "non_preferred_output": said("assistant", self.answer),
            }
            for _ in range(self.rows)
        )
        return "".join(json.dumps(row) + "\n" for row in rows).encode()


SORTS: Final = (
    Sort("fifty chats", 50, (10, 18), (30, 62)),
    Sort("long answers", 24, (10, 20), (250, 450)),
    Sort("labels", 300, (12, 20), (1, 1)),
    Sort("a shared system prompt", 40, (10, 20), (20, 60), system=SYSTEM),
    Sort("very long rows", 12, (300, 400), (700, 900), hyperparameters={"n_epochs": 2}),
    Sort("a row a step", 100, (20, 30), (60, 90), hyperparameters={"batch_size": 1, "n_epochs": 1}),
    Sort("all lengths", 60, (5, 200), (5, 400), hyperparameters={"n_epochs": 2}),
    Sort("large batches", 96, (10, 20), (60, 100), hyperparameters={"batch_size": 32}),
    Sort("Spanish", 40, (10, 25), (40, 80), words=PALABRAS),
    Sort("many turns", 30, (8, 20), (15, 40), turns=5, hyperparameters={"n_epochs": 2}),
)  # fmt: skip

_TWICE: Final = {"n_epochs": 2, "batch_size": 4}
METHODS: Final = (
    Sort("lora", 16, (10, 18), (30, 62), hyperparameters=_TWICE),
    Sort("q and v", 16, (10, 20), (60, 100), hyperparameters=_TWICE,
         tuning={"target_modules": ["q_proj", "v_proj"]}),
    Sort("dropout", 16, (10, 18), (30, 62), hyperparameters=_TWICE, tuning={"dropout": 0.1}),
    Sort("dora", 16, (5, 60), (5, 120), hyperparameters=_TWICE, tuning={"kind": "dora"}),
    Sort("4 bits", 16, (12, 20), (1, 1), hyperparameters=_TWICE, tuning={"base_bits": 4}),
    Sort("full", 16, (10, 20), (20, 60), hyperparameters=_TWICE, tuning={"kind": "full"}),
    Sort("last layers", 24, (10, 25), (40, 80), words=PALABRAS,
         hyperparameters={"n_epochs": 3, "batch_size": 4}, tuning={"kind": "last_layers"}),
    Sort("norm and head", 16, (10, 20), (30, 60), hyperparameters=_TWICE,
         tuning={"kind": "last_layers", "layers": 3, "norm_and_head": True}),
    Sort("preferences", 10, (20, 40), (20, 40), hyperparameters=_TWICE, method="dpo"),
    Sort("a shared system prompt", 16, (10, 20), (20, 60), system=SYSTEM, hyperparameters=_TWICE),
)  # fmt: skip
"""Small files, every way of tuning."""
