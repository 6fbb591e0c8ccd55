"""Rows of raw text: a prompt and its completion, without a template.

The completion is written as what follows the prompt, and ends with the first of the model's end
tokens, so that an answer ends too. Loss is on the completion and that end. What looks like a
control token in the text stays text.
"""

from __future__ import annotations

import numpy as np

from afina.data.kinds import Pair
from afina.text.renderer import Renderer, TokenRow


def pair_row(pair: Pair, renderer: Renderer) -> TokenRow:
    """The tokens of a pair, and which of them carry loss."""
    prompt = renderer.tokenizer.encode(pair.prompt) if pair.prompt else []
    completion = [*renderer.tokenizer.encode_piece(pair.completion), renderer.end_tokens[0]]
    ids = np.array([*prompt, *completion], dtype=np.int32)
    learned = np.arange(len(ids)) >= len(prompt)
    return TokenRow(ids, learned)
