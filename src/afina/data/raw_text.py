"""Rows of raw text: a prompt and its completion, without a template.

The prompt is written as one that is asked for: behind what opens a text of this model, and never
as nothing. The completion is written as what follows, and ends with the first of the model's end
tokens, so that an answer ends too. Loss is on the completion and that end. What looks like a
control token in the text stays text.
"""

from __future__ import annotations

import numpy as np

from afina.data.kinds import Pair
from afina.text.renderer import Renderer, TokenRow


def pair_row(pair: Pair, renderer: Renderer) -> TokenRow:
    """The tokens of a pair, and which of them carry loss."""
    row = renderer.plain_row(pair.prompt, pair.completion)
    return TokenRow(np.array(row.ids, dtype=np.int32), np.array(row.learned, dtype=np.bool_))
