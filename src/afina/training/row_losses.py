"""The loss of each training row in the first and in the last epoch: row_losses.csv.

A row that stays far above the rest is a suspect: a wrong answer, a broken text, a row in another
language. `suspect` is 1 where the modified z-score of its last loss is above 3.5 (Iglewicz and
Hoaglin 1993). The file has line numbers and counts, never text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

FILE: Final = "row_losses.safetensors"
SUSPECT_SCORE: Final = 3.5
_HEAD: Final = "line,tokens,first_epoch_loss,last_epoch_loss,suspect"


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

    def suspects(self) -> NDArray[np.bool_]:
        """Rows far above the rest."""
        known = self.last[~np.isnan(self.last)]
        if not len(known):
            return np.zeros(len(self.last), dtype=np.bool_)
        middle = np.median(known)
        away = np.abs(known - middle)
        # where half of the rows are alike the median says nothing, and the mean stands in
        spread = np.median(away) / 0.6745 or 1.253314 * away.mean()
        far: NDArray[np.bool_] = self.last - middle > SUSPECT_SCORE * spread
        return far & bool(spread > 0)

    def csv(self, lines: NDArray[np.int64], tokens: NDArray[np.int64]) -> bytes:
        """The file, a line a row in the order of the training file."""
        told = [_HEAD]
        for number, suspect in enumerate(self.suspects()):
            cells = (str(int(lines[number])), str(int(tokens[number])))
            losses = (_cell(self.first[number]), _cell(self.last[number]))
            told.append(",".join((*cells, *losses, str(int(suspect)))))
        return ("\n".join(told) + "\n").encode()


def _cell(value: np.float32) -> str:
    return "" if np.isnan(value) else f"{float(value):.5f}"
