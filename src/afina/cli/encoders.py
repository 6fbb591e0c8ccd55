"""The encoder of moderation and embeddings, for the commands that need it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from afina.cli.terminal import tell
from afina.errors import Offline, Unavailable

if TYPE_CHECKING:
    from afina.settings import Settings


def pull_encoder(settings: Settings) -> Path:
    """The encoder's folder, fetched if it is not there. Raises Unavailable."""
    from afina.model.encoder_source import ensure_encoder

    return ensure_encoder(settings.encoders, tell, settings)


def with_encoder(settings: Settings) -> None:
    """The same where the encoder is welcome and nothing depends on it: a failure is told."""
    if settings.moderation.backend != "local":
        return
    try:
        pull_encoder(settings)
    except (Unavailable, Offline) as error:
        tell(f"Moderation and embeddings are not ready: {error.one_line()}")
