"""What a file is that has another's name: said in words, with what to do about it."""

from __future__ import annotations

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
_AS_SHEET: Final = "Open it in a spreadsheet program and save it as .xlsx or as CSV."
_ENDINGS: Final = {
    "xls": ("an old Excel workbook (.xls)", _AS_SHEET),
    "ods": ("an OpenDocument sheet (.ods)", _AS_SHEET),
    "xlsb": ("a binary Excel workbook (.xlsb)", _AS_SHEET),
    "numbers": ("a Numbers sheet", "Export it as CSV."),
    "docx": ("a text document", "Put questions and answers into a table, and save that as CSV."),
    "pdf": ("a PDF", "Put questions and answers into a table, and save that as CSV."),
    "gz": ("compressed (.gz)", "Unpack it first."),
    "zip": ("an archive (.zip)", "Unpack it first."),
    "zst": ("compressed (.zst)", "Unpack it first."),
    "bz2": ("compressed (.bz2)", "Unpack it first."),
}


def by_name(ending: str) -> tuple[str, str] | None:
    """What a file with this ending is, and the remedy; None for an ending that is not known."""
    return _ENDINGS.get(ending)


def no_text(path: Path) -> tuple[str, str] | None:
    """What a file is whose name promises text and which is packed or binary, and the remedy; None
    for text."""
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(b"PAR1"):
        return "a Parquet file", "Give --format parquet."
    if not head.startswith((b"PK\x03\x04", _OLD_OFFICE, b"%PDF", *_PACKED)):
        return None
    found = by_content(path)
    return found or ("an Excel workbook", "Give --format xlsx.")


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
            return f"compressed ({name})", "Unpack it first."
    if head.startswith(b"PK"):
        return _archive(path)
    if head.startswith(b"%PDF"):
        return _ENDINGS["pdf"]
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<html", b"<!doctype", b"<table", b"<?xml", b"<meta")):
        return "a web page or XML, as some programs export it", _AS_SHEET
    if b"\0" not in head:
        return "plain text", "Give --format csv, or tsv."
    return None


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
