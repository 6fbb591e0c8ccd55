"""What placeholders stand for, locked with a key that only the user keeps.

A vault is one AES-256-GCM box: 12 bytes of nonce, then JSON under the key. Without the key it says
nothing; with another key, or changed by one bit, it does not open. The key is 32 random bytes as 64
hexadecimal digits in a file that only its owner reads; afina never stores it elsewhere.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from afina.errors import DataUnreadable

_NONCE: Final = 12
_ABOUT: Final = b"afina vault 1"


def read_key(path: Path) -> bytes:
    """The key in a file. Raises DataUnreadable where it is none."""
    try:
        key = bytes.fromhex(path.read_text().strip())
    except (OSError, ValueError):
        key = b""
    if len(key) != 32:
        raise DataUnreadable(
            f"{path} holds no key.",
            param="key",
            remedy="Give the file that was made with the vault.",
        )
    return key


def make_key(path: Path) -> bytes:
    """A new key in a new file that only its owner can read; an existing one is read."""
    if path.exists():
        return read_key(path)
    key = AESGCM.generate_key(bit_length=256)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123
        file.write(key.hex() + "\n")
    return key


def lock(values: Mapping[str, str], key: bytes) -> bytes:
    """The vault's bytes. Its nonce is random, so no two vaults are the same."""
    nonce = os.urandom(_NONCE)
    text = json.dumps(dict(values), ensure_ascii=False).encode()
    return nonce + AESGCM(key).encrypt(nonce, text, _ABOUT)


def unlock(box: bytes, key: bytes) -> dict[str, str]:
    """Value by placeholder. Raises DataUnreadable for the wrong key or a damaged vault."""
    try:
        text = AESGCM(key).decrypt(box[:_NONCE], box[_NONCE:], _ABOUT)
    except (InvalidTag, ValueError):
        raise DataUnreadable(
            "The vault does not open with this key.",
            param="key",
            remedy="Use the key that was made with it; a vault that was changed cannot be opened.",
        ) from None
    return {str(key): str(value) for key, value in json.loads(text).items()}
