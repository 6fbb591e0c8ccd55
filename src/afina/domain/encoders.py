"""The encoder that moderation and embeddings share: its names and its limits."""

from __future__ import annotations

from typing import Final

ENCODER_ID: Final = "multilingual-e5-small"
ENCODER_SHA256: Final = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
"""Of the 4-bit file that the folder is made from."""
WEIGHTS: Final = "encoder.safetensors"
TOKENIZER: Final = "tokenizer.json"
NORMALIZATION: Final = "normalization.json"
WIDTH: Final = 384
"""Numbers in a vector."""
MOST_TOKENS: Final = 512
"""In one text, its two marks included; a longer one is read in windows."""
