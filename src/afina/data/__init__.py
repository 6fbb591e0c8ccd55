"""Files to examples to shards: convert, check, estimate, tokenise. No torch."""
