"""What a file is that has another's name: said in words, with what to do about it."""

from __future__ import annotations

import codecs
import zipfile
from pathlib import Path
from typing import Final, NamedTuple

from afina.errors import DataUnreadable

_HEAD: Final = 1 << 16
_OLD_OFFICE: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ENCRYPTED: Final = "EncryptedPackage".encode("utf-16-le")
_PACKED: Final = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"(\xb5/\xfd": "zstandard",
}
_INTO_TABLE: Final = "Put questions and answers into a table, and save that as CSV."
_AS_SHEET: Final = "Open it in a spreadsheet program and save it as .xlsx or as CSV."


class Disguise(NamedTuple):
    """What a file is, what to do with it, and the name of both for who reads another language."""

    what: str
    remedy: str
    code: str

    def refusal(self, name: str) -> DataUnreadable:
        """The error for a file of that name."""
        return DataUnreadable(f"{name} is {self.what}.", remedy=self.remedy, code=self.code)


def _packed(what: str) -> Disguise:
    return Disguise(what, "Unpack it first.", "file_packed")


def _document(what: str) -> Disguise:
    return Disguise(what, _INTO_TABLE, "file_document")


def _sheet(what: str) -> Disguise:
    return Disguise(what, _AS_SHEET, "file_other_sheet")


def _picture(kind: str) -> Disguise:
    return Disguise(
        f"a picture ({kind})", "Bring the table or the chats themselves.", "file_picture"
    )


_BINARY: Final = {
    b"\x89PNG": _picture("PNG"),
    b"\xff\xd8\xff": _picture("JPEG"),
    b"GIF8": _picture("GIF"),
    b"Rar!": _packed("an archive (RAR)"),
    b"7z\xbc\xaf": _packed("an archive (7z)"),
    b"SQLite format 3": Disguise("a database (SQLite)", "Export its rows as CSV.", "file_database"),
}
_NEVER_PAGES: Final = frozenset({".csv", ".tsv", ".tab", ".json", ".jsonl", ".ndjson"})
"""Endings of files that no program fills with a web page on purpose."""
_CONTROLS: Final = bytes(byte for byte in range(1, 32) if byte not in b"\t\n\v\f\r\x1a\x1b")
_FEW_CONTROLS: Final = 8
_MOSTLY_TEXT: Final = 0.05
_ENDINGS: Final = {
    "xls": _sheet("an old Excel workbook (.xls)"),
    "ods": _sheet("an OpenDocument sheet (.ods)"),
    "xlsb": _sheet("a binary Excel workbook (.xlsb)"),
    "numbers": Disguise("a Numbers sheet", "Export it as CSV.", "file_other_sheet"),
    "html": _sheet("a web page"),
    "htm": _sheet("a web page"),
    "pdf": _document("a PDF"),
    **{ending: _document("a text document") for ending in ("docx", "doc", "odt")},
    **{ending: _packed(f"compressed (.{ending})") for ending in ("gz", "zst", "bz2")},
    **{ending: _packed(f"an archive (.{ending})") for ending in ("zip", "tar", "tgz", "rar", "7z")},
}


def by_name(ending: str) -> Disguise | None:
    """What a file with this ending is, and the remedy; None for an ending that is not known."""
    return _ENDINGS.get(ending)


def no_text(path: Path) -> Disguise | None:
    """What a file is whose name promises text and which is packed or binary, and the remedy; None
    for text."""
    with path.open("rb") as file:
        head = file.read(16)
    if head.startswith(b"PAR1"):
        return Disguise("a Parquet file", "Give --format parquet.", "file_other_name")
    for magic, told in _BINARY.items():
        if head.startswith(magic):
            return told
    is_page = path.suffix.lower() in _NEVER_PAGES and _is_page(head)
    if not is_page and not head.startswith((b"PK\x03\x04", _OLD_OFFICE, b"%PDF", *_PACKED)):
        return None
    found = by_content(path)
    return found or Disguise("an Excel workbook", "Give --format xlsx.", "file_other_name")


def not_even_text(path: Path) -> Disguise | None:
    """What a file is whose bytes are no text's, and the remedy; None for what may be text. Zeros
    say nothing: they stand between the letters of UTF-16, and behind what was cut off."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return None
    head = head.replace(b"\0", b"")
    controls = len(head) - len(head.translate(None, _CONTROLS))
    if controls < max(_FEW_CONTROLS, len(head) * _MOSTLY_TEXT):
        return None
    return Disguise(
        "no text: other bytes stand in it", "Save it as CSV, or as JSONL, in UTF-8.", "file_no_text"
    )


def by_content(path: Path) -> Disguise | None:
    """What a file is that is no workbook, by its first bytes; None where they say nothing."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        return Disguise("empty", "Give a table with a header.", "file_empty")
    if head.startswith(_OLD_OFFICE):
        if _is_encrypted(path):
            return Disguise("protected by a password", "Save it without a password.", "file_locked")
        return _ENDINGS["xls"]
    for magic, name in _PACKED.items():
        if head.startswith(magic):
            return _packed(f"compressed ({name})")
    if head.startswith(b"PK"):
        return _archive(path)
    if head.startswith(b"%PDF"):
        return _ENDINGS["pdf"]
    if _is_page(head):
        return _sheet("a web page or XML, as some programs export it")
    if b"\0" not in head:
        return Disguise("plain text", "Give --format csv, or tsv.", "file_other_name")
    return None


def _is_page(head: bytes) -> bool:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return start.startswith((b"<html", b"<!doctype", b"<table", b"<?xml", b"<meta"))


def _is_encrypted(path: Path) -> bool:
    """The name of the encrypted part stands in the directory of the container, anywhere in it."""
    kept = b""
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            if _ENCRYPTED in kept + block:
                return True
            kept = block[-len(_ENCRYPTED) :]
    return False


def _archive(path: Path) -> Disguise | None:
    try:
        with zipfile.ZipFile(path) as packed:
            names = packed.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return Disguise(
            "a damaged archive",
            "Get or save the workbook again; it may have been cut short.",
            "file_damaged",
        )
    if any(name.startswith("word/") for name in names):
        return _ENDINGS["docx"]
    if "content.xml" in names:
        return _ENDINGS["ods"]
    if "xl/workbook.bin" in names:
        return _ENDINGS["xlsb"]
    if not any(name.startswith("xl/") for name in names):
        return Disguise(
            "an archive, and holds no sheet", "Unpack it, and give the file in it.", "file_packed"
        )
    return None
