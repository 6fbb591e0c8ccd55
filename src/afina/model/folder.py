"""The folder of a base model on disk: what may be in it, its hash and its record.

Only safetensors weights and plain files are let in: pickles are refused by name and by their first
bytes, and so is a configuration that wants code of its own (`auto_map`). The record `afina.json`
is written last, so that a half-made folder is never taken for a model. No torch here.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from pathlib import Path
from typing import Any, Final

from afina.domain.codec import decode, encode
from afina.domain.models import BaseModel
from afina.errors import BaseRefused

RECORD: Final = "afina.json"
_PICKLED: Final = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".msgpack", ".h5"})
_CODE: Final = frozenset({".py", ".pyc", ".so", ".dll", ".dylib"})
_PICKLE_MAGIC: Final = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")
_HEADER_LIMIT: Final = 100 * 1024 * 1024
_ITEM_BYTES: Final = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1,
    "BOOL": 1, "U16": 2, "U32": 4, "U64": 8, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip


def vet_folder(folder: Path) -> None:
    """Raises BaseRefused unless `folder` holds a model made of plain files alone."""
    if not (folder / "config.json").is_file():
        raise BaseRefused(
            f"{folder} is no model folder: it has no config.json.",
            remedy="Give a folder as transformers saves it, or the id of a model on the hub.",
        )
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            _vet_file(path)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise BaseRefused(
            f"{folder} has no .safetensors file.",
            remedy="Convert the weights with transformers: save_pretrained writes safetensors.",
        )
    for path in weights:
        vet_safetensors(path)
    if not (folder / "tokenizer.json").is_file():
        raise BaseRefused(
            f"{folder} has no tokenizer.json.",
            remedy="Save the tokenizer with transformers' AutoTokenizer.save_pretrained.",
        )


def _vet_file(path: Path) -> None:
    suffix = path.suffix.lower()
    if suffix in _PICKLED or suffix in _CODE:
        kind = "may hold a pickle" if suffix in _PICKLED else "is code"
        raise BaseRefused(
            f"{path.name} {kind}; afina loads safetensors alone and runs no model's own code.",
            remedy="Remove the file from the folder, or convert it to safetensors.",
        )
    with path.open("rb") as file:
        head = file.read(4)
    if head.startswith(_PICKLE_MAGIC):
        raise BaseRefused(
            f"{path.name} begins like a pickle or an archive.",
            remedy="Remove the file from the folder, or convert it to safetensors.",
        )
    if suffix == ".json" and "auto_map" in _json_object(path):
        raise BaseRefused(
            f"{path.name} asks for code that comes with the model (auto_map).",
            remedy="Choose a model whose architecture transformers knows.",
        )


def _json_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise BaseRefused(f"{path.name} is not JSON: {error}.") from None
    return value if isinstance(value, dict) else {}


def vet_safetensors(path: Path) -> dict[str, Any]:
    """The header of a safetensors file. Raises BaseRefused if header and size do not agree."""
    try:
        return _header(path)
    except (ValueError, KeyError, TypeError, OSError, struct.error) as error:
        raise BaseRefused(
            f"{path.name} is not a sound safetensors file: {error}.", remedy="Fetch it again."
        ) from None


def _header(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > min(_HEADER_LIMIT, size - 8):
            raise ValueError("its header is longer than the file")
        header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("its header is not an object")
    spans = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, end = entry["data_offsets"]
        count = 1
        for dimension in entry["shape"]:
            count *= int(dimension)
        if end - start != count * _ITEM_BYTES[entry["dtype"]]:
            raise ValueError(f"tensor {name} has the wrong length")
        spans.append((start, end))
    position = 0
    for start, end in sorted(spans):
        if start != position:
            raise ValueError("its tensors overlap or leave gaps")
        position = end
    if position != size - 8 - length:
        raise ValueError("it is cut off or has bytes left over")
    return header


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_sha256(folder: Path) -> str:
    """A hash over the names and hashes of a folder's files, the record left out."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != RECORD:
            name = path.relative_to(folder).as_posix()
            total.update(f"{name}\0{file_sha256(path)}\n".encode())
    return total.hexdigest()


def write_record(folder: Path, record: BaseModel) -> None:
    """Writes `afina.json`, whole or not at all."""
    target = folder / RECORD
    partial = folder / f".{RECORD}.part"
    with partial.open("w") as file:
        json.dump(encode(record), file, indent=2, sort_keys=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(target)


def read_record(folder: Path) -> BaseModel | None:
    """The record of a model folder; None where there is none yet."""
    try:
        raw = (folder / RECORD).read_bytes()
    except FileNotFoundError:
        return None
    try:
        return decode(BaseModel, json.loads(raw), RECORD)
    except ValueError as error:
        raise BaseRefused(
            f"{folder / RECORD} is damaged: {error}.",
            remedy="Remove the folder and pull the model again.",
        ) from None
