"""The loss of each training row in the first and in the last epoch: row_losses.csv.

A row that stays far above rows like it is a suspect: a wrong answer, a broken text, a row in
another language. Its `score` says how far its last loss lies above the median of the rows whose
prompts are most like its own, in spreads of theirs; `suspect` is 1 above 3.5 (the bound that
Iglewicz and Hoaglin gave for modified z-scores, 1993). So answers in free words are not suspects
for being harder than labels. The file has line numbers and counts, never text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from afina.training.likeness import Prompt, nearest

FILE: Final = "row_losses.safetensors"
SUSPECT_SCORE: Final = 3.5
NOTHING: Final = 0.1
"""Nats a token that are no difference: rows that are all learned lie closer to each other."""
_HEAD: Final = "line,tokens,first_epoch_loss,last_epoch_loss,suspect,score"


class RowLosses:
    """What was measured so far; not a number where a row was not met."""

    def __init__(self, rows: int) -> None:
        self.first: NDArray[np.float32] = np.full(rows, np.nan, dtype=np.float32)
        self.last: NDArray[np.float32] = np.full(rows, np.nan, dtype=np.float32)

    def note(self, epoch: int, losses: Mapping[int, float]) -> None:
        """A step of that epoch met these rows."""
        for row, loss in losses.items():
            if epoch == 1:
                self.first[row] = loss
            self.last[row] = loss

    def to_bytes(self) -> bytes:
        """For a checkpoint."""
        raw: bytes = save({"first": self.first, "last": self.last})
        return raw

    def load(self, raw: bytes) -> None:
        """Back to what a checkpoint says."""
        found = load(raw)
        self.first, self.last = found["first"], found["last"]

    def scores(self, prompt: Prompt) -> NDArray[np.float32]:
        """How far each row's last loss lies above that of rows like it; `prompt` gives a row's ids.
        Not a number where the row was not met, or where there is nothing to compare with."""
        scores = np.full(len(self.last), np.nan, dtype=np.float32)
        met = np.flatnonzero(~np.isnan(self.last))
        last = self.last[met]
        for rows, neighbours in nearest(lambda place: prompt(int(met[place])), len(met)):
            around = last[neighbours]
            middle = np.median(around, axis=1)
            spread = np.median(np.abs(around - middle[:, None]), axis=1) / 0.6745
            here = slice(rows.start, rows.stop)
            scores[met[here]] = (last[here] - middle) / (spread + NOTHING)
        return scores

    def csv(self, lines: NDArray[np.int64], tokens: NDArray[np.int64], prompt: Prompt) -> bytes:
        """The file, a line a row in the order of the training file."""
        told = [_HEAD]
        for number, score in enumerate(self.scores(prompt)):
            cells = (str(int(lines[number])), str(int(tokens[number])))
            losses = (_cell(self.first[number]), _cell(self.last[number]))
            suspect = str(int(score > SUSPECT_SCORE))
            told.append(",".join((*cells, *losses, suspect, _cell(score, 2))))
        return ("\n".join(told) + "\n").encode()


def _cell(value: np.float32, places: int = 5) -> str:
    return "" if np.isnan(value) else f"{float(value):.{places}f}"
