"""The encodings that a page offers for a text file, each with some of the file's own words in it.

Which one is right, nobody can tell from bytes alone: who knows the words sees it at once.
"""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from typing import Final

NAMES: Final = {
    "cp1252": "Windows-1252",
    "iso8859-15": "ISO 8859-15",
    "mac-roman": "Mac Roman",
    "cp850": "DOS 850",
    "cp437": "DOS 437",
    "cp1250": "Windows-1250",
    "iso8859-2": "ISO 8859-2",
    "cp1251": "Windows-1251",
    "koi8-r": "KOI8-R",
    "cp1253": "Windows-1253",
    "cp1254": "Windows-1254",
    "cp1255": "Windows-1255",
    "cp1256": "Windows-1256",
    "cp1257": "Windows-1257",
    "cp1258": "Windows-1258",
    "cp874": "Windows-874",
    "cp932": "Shift JIS",
    "euc_jp": "EUC-JP",
    "gb18030": "GB 18030",
    "big5": "Big5",
    "cp949": "Korean (949)",
}
"""By the name of Python's codec."""
_SAMPLE: Final = 64 * 1024
_WORDS: Final = 32
_TELLING: Final = re.compile(rb"[^\x00-\x7f]")


def is_sure(encoding: str | None) -> bool:
    """Whether a file says its encoding itself: every byte of it fits, or a mark stands first."""
    return encoding is None or encoding.lower().startswith(("utf", "ascii"))


def codec_of(encoding: str | None) -> str | None:
    """The codec's name as `NAMES` writes it."""
    return None if encoding is None else codecs.lookup(encoding).name


def offered(path: Path) -> list[tuple[str, str, str]]:
    """Codec, title and some telling words of the file, for each encoding that can read its
    beginning."""
    with path.open("rb") as file:
        sample = file.read(_SAMPLE)
    lines = [line for line in sample.splitlines() if _TELLING.search(line)]
    line = max(lines[:20], key=lambda one: len(set(_TELLING.findall(one))), default=b"")
    found = []
    for name, title in NAMES.items():
        try:
            codecs.getincrementaldecoder(name)("strict").decode(sample)
        except UnicodeDecodeError:
            continue
        found.append((name, title, _telling(line.decode(name, "replace"))))
    return found


def _telling(text: str) -> str:
    """Some words of a line around the first letter that is not ASCII."""
    words = text.split()
    place = next((i for i, word in enumerate(words) if not word.isascii()), 0)
    part = " ".join(words[max(0, place - 1) :])
    first = next((i for i, letter in enumerate(part) if not letter.isascii()), 0)
    part = part[first if first > _WORDS // 2 else 0 :][:_WORDS]
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in part)
