"""The sentences of the moderation model: those it is trained on and those it is tested on.

    @name: a | b      words that `{name}` may stand for in the sentences below
    # category        what the sentences below belong to (`none`: to no category)

Training sentences come with the package, a file for each manner and language; those of the test
stand here, are written in another manner and are never trained on. The lines of `business` are
full of numbers, which say nothing: they are drawn anew wherever such a line is read (`redrawn`),
and a fifth of them, by hash, is kept apart from training and calibration alike (`lines_apart`).
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
STRANGERS = Path(__file__).parent / "moderation_strangers"
NUMBERED = "business"
"""The manner whose numbers are drawn anew."""
APART = 80
"""Lines of it whose group is no lower are kept apart."""
WRITTEN_OUT = 4
"""Its lines with words to choose from are written out so many times as often as others."""
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


def computed_in() -> torch.dtype:
    """bf16 where the processor multiplies it, as the engine does; elsewhere torch takes a hundred
    times as long with it as with float32."""
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32


def training_sentences(most_of_one: int) -> list[Sentence]:
    """Lines with words to choose from are written out `most_of_one` times at most."""
    return [s for s in _every_line(most_of_one) if not is_apart(s)]


def lines_apart() -> list[Sentence]:
    """Lines of business that neither training nor calibration reads, written out."""
    return [s for s in _every_line(1) if is_apart(s)]


def is_apart(sentence: Sentence) -> bool:
    return sentence.manner == NUMBERED and sentence.group >= APART


def redrawn(text: str, chance: Random) -> str:
    """The same with other numbers, each as long as it was; of a year the century stays."""

    def other(found: re.Match[str]) -> str:
        kept = found[0][:2] if re.fullmatch(r"(19|20)\d\d", found[0]) else ""
        rest = found[0][len(kept) :]
        lowest = 0 if kept or rest[0] == "0" else 1
        first = rest[0] if rest[0] == "0" and not kept else str(chance.randint(lowest, 9))
        return kept + first + "".join(str(chance.randint(0, 9)) for _ in rest[1:])

    return re.sub(r"\d+", other, text)


def _every_line(most_of_one: int) -> list[Sentence]:
    made: list[Sentence] = []
    for path in sorted(TRAINING.glob("*_??.txt")):
        manner, _, language = path.stem.rpartition("_")
        most = most_of_one * (WRITTEN_OUT if manner == NUMBERED else 1)
        made += _read(path, language, most, manner)
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
    """All of a set's. Nothing was chosen by those of PROBE, and those of STRANGERS were written
    without sight of any other."""
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
            if manner == NUMBERED:
                texts = [redrawn(text, Random(text)) for text in texts]
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
