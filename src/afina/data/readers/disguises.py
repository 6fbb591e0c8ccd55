"""What a file is that has another's name: said in words, with what to do about it."""

from __future__ import annotations

import codecs
import zipfile
from pathlib import Path
from typing import Final

_HEAD: Final = 1 << 16
_OLD_OFFICE: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ENCRYPTED: Final = "EncryptedPackage".encode("utf-16-le")
_PACKED: Final = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"(\xb5/\xfd": "zstandard",
}
_UNPACK: Final = "Unpack it first."
_NO_TABLE: Final = "Bring the table or the chats themselves."
_BINARY: Final = {
    b"\x89PNG": ("a picture (PNG)", _NO_TABLE),
    b"\xff\xd8\xff": ("a picture (JPEG)", _NO_TABLE),
    b"GIF8": ("a picture (GIF)", _NO_TABLE),
    b"Rar!": ("an archive (RAR)", _UNPACK),
    b"7z\xbc\xaf": ("an archive (7z)", _UNPACK),
    b"SQLite format 3": ("a database (SQLite)", "Export its rows as CSV."),
}
_NEVER_PAGES: Final = frozenset({".csv", ".tsv", ".tab", ".json", ".jsonl", ".ndjson"})
"""Endings of files that no program fills with a web page on purpose."""
_CONTROLS: Final = bytes(byte for byte in range(1, 32) if byte not in b"\t\n\v\f\r\x1a\x1b")
_FEW_CONTROLS: Final = 8
_MOSTLY_TEXT: Final = 0.05
_AS_SHEET: Final = "Open it in a spreadsheet program and save it as .xlsx or as CSV."
_ENDINGS: Final = {
    "xls": ("an old Excel workbook (.xls)", _AS_SHEET),
    "ods": ("an OpenDocument sheet (.ods)", _AS_SHEET),
    "xlsb": ("a binary Excel workbook (.xlsb)", _AS_SHEET),
    "numbers": ("a Numbers sheet", "Export it as CSV."),
    "docx": ("a text document", "Put questions and answers into a table, and save that as CSV."),
    "pdf": ("a PDF", "Put questions and answers into a table, and save that as CSV."),
    "doc": ("a text document", "Put questions and answers into a table, and save that as CSV."),
    "odt": ("a text document", "Put questions and answers into a table, and save that as CSV."),
    "gz": ("compressed (.gz)", _UNPACK),
    "zip": ("an archive (.zip)", _UNPACK),
    "tar": ("an archive (.tar)", _UNPACK),
    "tgz": ("an archive (.tgz)", _UNPACK),
    "rar": ("an archive (.rar)", _UNPACK),
    "7z": ("an archive (.7z)", _UNPACK),
    "zst": ("compressed (.zst)", _UNPACK),
    "bz2": ("compressed (.bz2)", _UNPACK),
    "html": ("a web page", _AS_SHEET),
    "htm": ("a web page", _AS_SHEET),
}


def by_name(ending: str) -> tuple[str, str] | None:
    """What a file with this ending is, and the remedy; None for an ending that is not known."""
    return _ENDINGS.get(ending)


def no_text(path: Path) -> tuple[str, str] | None:
    """What a file is whose name promises text and which is packed or binary, and the remedy; None
    for text."""
    with path.open("rb") as file:
        head = file.read(16)
    if head.startswith(b"PAR1"):
        return "a Parquet file", "Give --format parquet."
    for magic, told in _BINARY.items():
        if head.startswith(magic):
            return told
    is_page = path.suffix.lower() in _NEVER_PAGES and _is_page(head)
    if not is_page and not head.startswith((b"PK\x03\x04", _OLD_OFFICE, b"%PDF", *_PACKED)):
        return None
    found = by_content(path)
    return found or ("an Excel workbook", "Give --format xlsx.")


def not_even_text(path: Path) -> tuple[str, str] | None:
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
    return "no text: other bytes stand in it", "Save it as CSV, or as JSONL, in UTF-8."


def by_content(path: Path) -> tuple[str, str] | None:
    """What a file is that is no workbook, by its first bytes; None where they say nothing."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        return "empty", "Give a table with a header."
    if head.startswith(_OLD_OFFICE):
        if _is_encrypted(path):
            return "protected by a password", "Save it without a password."
        return _ENDINGS["xls"]
    for magic, name in _PACKED.items():
        if head.startswith(magic):
            return f"compressed ({name})", _UNPACK
    if head.startswith(b"PK"):
        return _archive(path)
    if head.startswith(b"%PDF"):
        return _ENDINGS["pdf"]
    if _is_page(head):
        return "a web page or XML, as some programs export it", _AS_SHEET
    if b"\0" not in head:
        return "plain text", "Give --format csv, or tsv."
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


def _archive(path: Path) -> tuple[str, str] | None:
    try:
        with zipfile.ZipFile(path) as packed:
            names = packed.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return "a damaged archive", "Get or save the workbook again; it may have been cut short."
    if any(name.startswith("word/") for name in names):
        return _ENDINGS["docx"]
    if "content.xml" in names:
        return _ENDINGS["ods"]
    if "xl/workbook.bin" in names:
        return _ENDINGS["xlsb"]
    if not any(name.startswith("xl/") for name in names):
        return "an archive, and holds no sheet", "Unpack it, and give the file in it."
    return None
