"""Personal data and secrets in texts: found by pattern and checksum, replaced by placeholders."""
