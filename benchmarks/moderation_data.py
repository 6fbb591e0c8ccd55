"""The sentences of the moderation model: those it is trained on and those it is tested on.

    @name: a | b      words that `{name}` may stand for in the sentences below
    # category        what the sentences below belong to (`none`: to no category)

Training sentences come with the package, a file for each manner and language; those of the test
stand here, are written in another manner and are never trained on.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch

from afina.data.moderation.categories import CATEGORIES, PARENTS

LANGUAGES = ("en", "es", "pt")
PACKAGE = Path(__file__).parent.parent / "src" / "afina" / "data" / "moderation"
TRAINING = PACKAGE / "training"
TEST = Path(__file__).parent / "moderation_sentences"
PROBE = Path(__file__).parent / "moderation_probe"
DEBATABLE = {
    "hate": ("harassment",),
    "hate/threatening": ("harassment", "harassment/threatening"),
    "harassment": ("sexual",),
    "harassment/threatening": ("violence/graphic",),
    "illicit/violent": ("violence",),
    "self-harm": ("harassment", "violence", "violence/graphic"),
    "sexual/minors": ("illicit", "harassment"),
    "violence": ("illicit", "illicit/violent", "harassment", "harassment/threatening", "hate"),
}
"""What a sentence of a category may be called besides, by reasonable people: counted neither for
nor against."""


@dataclass(frozen=True)
class Sentence:
    """One sentence. `source` is the line that it was made from, `manner` the file's name."""

    language: str
    category: str
    text: str
    source: str
    manner: str = ""

    @property
    def group(self) -> int:
        """From 0 to 99, by the hash of its source: what is made from one line stays together."""
        return hashlib.sha256(self.source.encode()).digest()[0] * 100 // 256


def training_sentences(most_of_one: int) -> list[Sentence]:
    """Lines with words to choose from are written out `most_of_one` times at most."""
    made: list[Sentence] = []
    for path in sorted(TRAINING.glob("*_??.txt")):
        manner, _, language = path.stem.rpartition("_")
        made += _read(path, language, most_of_one, manner)
    return made


def plain_sentences() -> list[Sentence]:
    """Ordinary texts that belong to no category: answers as models give them, help, a play."""
    made: list[Sentence] = []
    language = ""
    for line in (TRAINING / "plain.txt").read_text().splitlines():
        if line.startswith("@"):
            language = line[1:]
        else:
            made.append(Sentence(language, "none", line, line, "plain"))
    return made


def sentences_of_the_test(folder: Path = TEST) -> list[Sentence]:
    """All of them; of PROBE those that nothing was chosen by."""
    return [s for name in LANGUAGES for s in _read(folder / f"{name}.txt", name, 1)]


def labels(sentences: list[Sentence]) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels [sentences, 13], and 0 where a label is debatable, else 1."""
    y, w = torch.zeros(len(sentences), 13), torch.ones(len(sentences), 13)
    for row, sentence in enumerate(sentences):
        for name in (sentence.category, *PARENTS.get(sentence.category, ())):
            if name != "none":
                y[row, CATEGORIES.index(name)] = 1
        for name in DEBATABLE.get(sentence.category, ()):
            w[row, CATEGORIES.index(name)] = 0
    return y, w


def _read(path: Path, language: str, most: int, manner: str = "") -> list[Sentence]:
    words: dict[str, list[str]] = {}
    category = "none"
    made: list[Sentence] = []
    for line in path.read_text().splitlines():
        if line.startswith("@"):
            name, _, rest = line[1:].partition(":")
            words[name] = [word.strip() for word in rest.split("|")]
        elif line.startswith("# "):
            category = line[2:].strip()
        elif line:
            texts = _written_out(line, words, most)
            made += [Sentence(language, category, text, line, manner) for text in texts]
    return made


def _written_out(line: str, words: dict[str, list[str]], most: int) -> list[str]:
    names = re.findall(r"\{(\w+)\}", line)
    if not names:
        return [line]
    random, found = Random(line), set()
    for _ in range(3 * most):
        text = line
        for name in names:
            text = text.replace(f"{{{name}}}", random.choice(words[name]), 1)
        found.add(text[:1].upper() + text[1:])
        if len(found) >= most:
            break
    return sorted(found)
