"""Chat to tokens, without torch: templates, tokenizers, the one renderer."""
