"""API keys: 256 bits, stored as a hash, shown once."""

from __future__ import annotations

from pathlib import Path

from afina.domain.accounts import ApiKey, Caller
from afina.service.platform import Platform


def ensure_first_key(platform: Platform) -> Path:
    """Makes organization, project and first key where there are none; the key is written to
    DATA/api-key (mode 0600), whose path is returned."""
    raise NotImplementedError


def authenticate(platform: Platform, secret: str) -> Caller:
    """Whose key this is. Raises Unauthenticated."""
    raise NotImplementedError


def create_key(
    platform: Platform, caller: Caller, name: str, expires_after_s: int | None = None
) -> tuple[ApiKey, str]:
    """A new key of the caller's project, and its secret, which is never shown again."""
    raise NotImplementedError


def list_keys(platform: Platform, caller: Caller) -> list[ApiKey]:
    """The project's keys, newest first, revoked ones too."""
    raise NotImplementedError


def revoke_key(platform: Platform, caller: Caller, key_id: str) -> ApiKey:
    """From now on the key opens nothing. Raises NotFound."""
    raise NotImplementedError
