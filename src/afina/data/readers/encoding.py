"""Which encoding a text file has: given, marked, or found out, and said in the report.

The order: what the user says; a byte order mark; UTF-16 by its zero bytes; UTF-8 if every byte
fits; DOS 850 or Mac Roman where the letters inside words are theirs; Windows-1252 (Excel's, in
western Europe and the Americas) if most bytes are ASCII; else the best guess of charset-normalizer.
A file of which a part is UTF-8 and a part is not was put together from two: no single encoding
reads it, and it is refused with the line where the other begins.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import charset_normalizer

from afina.errors import DataUnreadable, InvalidRequest

_BLOCK: Final = 1 << 20
_SAMPLE: Final = 256 * 1024
_MOSTLY_ASCII: Final = 0.25
GUESS: Final = "the best guess of charset-normalizer"
_COMMON: Final = (
    *("cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258"),
    *("iso8859_2", "iso8859_15", "koi8_r", "cp850", "cp874", "mac_roman"),
    *("cp932", "euc_jp", "gb18030", "big5", "cp949"),
)
"""What programs still write; a rarer one is guessed where none of these fits."""
_UNDEFINED_IN_1252: Final = frozenset(b"\x81\x8d\x8f\x90\x9d")
_WIDE: Final = re.compile(rb"[\xc3-\xf4][\x80-\xbf]{1,3}|\xc2[\xa1-\xbf]")
_MIXED_FROM: Final = 3
"""So many characters of UTF-8 do not stand in text of another encoding by chance."""
_OLDER: Final = ("cp850", "mac_roman")
_INSIDE: Final = re.compile(r"(?<=[a-z])[^\x00-\x7f](?=[a-z])")
_LETTERS: Final = {
    **dict.fromkeys("áéíóúüñçãõâêôàèäöïëß", 1.0),
    **dict.fromkeys("ìòùåæøîûœ", 0.5),
}
"""Those that one meets often count more: in another code page they become the others."""
_JOINING: Final = frozenset("’‘–—·\xa0\xad")
"""What stands between letters of two words, or of one that is cut."""
_NO_WORDS: Final = 0.4
_WORDS: Final = 0.8
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig", "UTF-8"),
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF32_BE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)


@dataclass(frozen=True)
class FoundEncoding:
    """A codec's name, and why it was chosen."""

    name: str
    reason: str


def find_encoding(path: Path, given: str | None) -> FoundEncoding:
    """The encoding of a file. Raises InvalidRequest for an unknown name, DataUnreadable where the
    file does not have the encoding that was given or none can be found."""
    if given is not None:
        return _given(path, given)
    with path.open("rb") as file:
        head = file.read(_SAMPLE)
    for mark, name, title in _MARKS:
        if head.startswith(mark):
            return FoundEncoding(name, f"byte order mark of {title}")
    if (wide := _wide(head)) is not None:
        return FoundEncoding(wide, "every other byte is zero")
    bad = _first_bad_byte(path, "utf-8")
    if bad is None:
        return FoundEncoding("utf-8", "every byte fits")
    return _single_byte(path, head, bad)


def _given(path: Path, given: str) -> FoundEncoding:
    try:
        name = codecs.lookup(given).name
    except LookupError:
        raise InvalidRequest(
            f"There is no encoding {given!r}.",
            param="encoding",
            remedy="Use utf-8, cp1252, utf-16, latin-1 or another that Python knows.",
        ) from None
    bad = _first_bad_byte(path, name)
    if bad is not None:
        raise DataUnreadable(
            f"{path.name} is not {given}: byte {bad + 1} does not fit.",
            param="encoding",
            remedy="Leave --encoding out to have it found.",
        )
    return FoundEncoding("utf-8-sig" if name == "utf-8" else name, "given")


def _wide(head: bytes) -> str | None:
    """UTF-16 without a mark: text of mostly Latin letters has a zero in every other byte."""
    if len(head) < 4:
        return None
    even, odd = head[0::2].count(0), head[1::2].count(0)
    half = len(head) // 2
    if odd > half * 0.4 and even < half * 0.1:
        return "utf-16-le"
    if even > half * 0.4 and odd < half * 0.1:
        return "utf-16-be"
    return None


def _first_bad_byte(path: Path, encoding: str) -> int | None:
    """Where a file stops being `encoding`, looking at all of it in flat memory."""
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    done = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            try:
                decoder.decode(block)
            except UnicodeError as error:
                return done + int(getattr(error, "start", 0))
            done += len(block)
    try:
        decoder.decode(b"", final=True)
    except UnicodeError:
        return max(0, done - 1)
    return None


def _refuse_mixed(path: Path, head: bytes, bad: int) -> None:
    """Where UTF-8 of several bytes stands before the first byte that is none, and after it bytes
    that other encodings have alone."""
    before = head[:bad]
    wide = len(_WIDE.findall(before))
    if wide < _MIXED_FROM or len(before) < bad:
        return
    with path.open("rb") as file:
        lines, done = 1, 0
        while done < bad:
            block = file.read(min(_BLOCK, bad - done))
            lines += block.count(b"\n")
            done += len(block)
    raise DataUnreadable(
        f"{path.name} has two encodings: it is UTF-8 up to line {lines}, and that line is not "
        f"(byte {bad + 1} of the file).",
        param="encoding",
        remedy="It was put together from two files: save each as UTF-8 and join them again.",
        code="file_encoding",
    )


def _older(sample: bytes) -> str | None:
    """The code page of DOS or of old Macs in which the letters between plain ones are those of
    words, where they are not in Windows-1252; None where that one will do."""
    usual = _in_words(sample.decode("cp1252", "replace"))
    if usual is None or usual > _NO_WORDS:
        return None
    shares = {name: _in_words(sample.decode(name, "replace")) or 0.0 for name in _OLDER}
    best = max(_OLDER, key=lambda name: shares[name])
    return best if shares[best] > _WORDS else None


def _in_words(text: str) -> float | None:
    """Of the characters beyond ASCII inside words of small letters, the share that is letters of
    western languages; None where there are none."""
    inside = [one for one in _INSIDE.findall(text) if one not in _JOINING]
    return sum(_LETTERS.get(one, 0.0) for one in inside) / len(inside) if inside else None


def _single_byte(path: Path, head: bytes, bad: int) -> FoundEncoding:
    _refuse_mixed(path, head, bad)
    with path.open("rb") as file:
        file.seek(max(0, bad - _SAMPLE // 2))
        sample = head + file.read(_SAMPLE)
    high = sum(byte >= 0x80 for byte in sample)
    letters = sum(chr(byte).isalpha() for byte in sample if byte < 0x80) + high
    western = high <= letters * _MOSTLY_ASCII and not _UNDEFINED_IN_1252.intersection(sample)
    if (older := _older(sample)) is not None and _first_bad_byte(path, older) is None:
        why = f"byte {bad + 1} is not UTF-8, and words have their letters as {older}"
        return FoundEncoding(older, why)
    if western and _first_bad_byte(path, "cp1252") is None:
        return FoundEncoding("cp1252", f"byte {bad + 1} is not UTF-8, and most are ASCII")
    best = charset_normalizer.from_bytes(sample, cp_isolation=list(_COMMON)).best()
    best = best or charset_normalizer.from_bytes(sample).best()
    if best is not None and _first_bad_byte(path, best.encoding) is None:
        return FoundEncoding(best.encoding, GUESS)
    raise DataUnreadable(
        f"The encoding of {path.name} cannot be found out: byte {bad + 1} is not UTF-8.",
        param="encoding",
        remedy="Say what it is with --encoding, or save the file as UTF-8.",
        code="file_encoding",
    )
