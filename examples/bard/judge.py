"""Two judges of style that are not the training loss.

The first counts answers with words that only early modern English has. The second asks the engine
how likely each model finds answers, in that manner, to questions that it was never trained on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from afina.serving.client import BlockingEngineClient
from afina.serving.protocol import Score
from afina.text.renderer import Renderer

_MARKERS = {
    "thee", "thou", "thy", "thine", "thyself", "dost", "doth", "hath", "hast", "’tis", "'tis",
    "prithee", "forsooth", "anon", "betwixt", "ere", "wherein", "whereof", "wherefore", "nay",
    "aye", "verily", "alas", "unto", "hither", "thither", "oft", "naught", "nought", "mayst",
    "shouldst", "wouldst", "canst", "wilt", "shalt", "lo", "methinks",
}  # fmt: skip
_WORD = re.compile(r"[’'a-z]+")
_VERB = re.compile(r"\b(?!teeth|elizabeth)[a-z]{2,}eth\b")


def has_markers(answer: str, wanted: int = 2) -> bool:
    """Whether an answer has at least `wanted` different early-modern words or endings."""
    text = answer.lower()
    found = {word for word in _WORD.findall(text) if word in _MARKERS}
    return len(found | set(_VERB.findall(text))) >= wanted


def share_with_markers(answers: Sequence[str]) -> float:
    """The share of answers in the manner, 0 to 1."""
    return sum(has_markers(answer) for answer in answers) / len(answers)


def mean_log_likelihood(
    engine: BlockingEngineClient,
    base: tuple[str, Path],
    adapter: str | None,
    rows: Sequence[tuple[str, str]],
) -> float:
    """Nats a token that a model gives to the reference answers; `base` is its id and folder."""
    renderer = Renderer.load(base[1])

    def score(row: tuple[str, str]) -> list[float]:
        asked = {"role": "user", "content": row[0]}
        prompt = renderer.prompt([asked])
        whole = renderer.training_row([asked, {"role": "assistant", "content": row[1]}]).ids
        forced = Score(base[0], prompt, whole[len(prompt) :], adapter=adapter, top=1)
        return engine.score(forced).logprobs

    # All at once: the engine computes them as one batch.
    with ThreadPoolExecutor(len(rows)) as pool:
        logprobs = [value for found in pool.map(score, rows) for value in found]
    return math.fsum(logprobs) / len(logprobs)
