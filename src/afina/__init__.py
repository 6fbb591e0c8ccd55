"""afina: a fine-tuning platform that its users own. Start at docs/map.md."""

__version__ = "0.1.0"
