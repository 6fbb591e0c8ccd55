"""From a model folder, or a LoRA adapter, to a GGUF file as llama.cpp runs it.

A file is whole or not there. Weights pass through one tensor at a time, so that a large model needs
no more memory than its largest tensor. Norms and biases stay in 32 bits as llama.cpp wants them;
matrices are stored as asked. Read with numpy: no torch here, so that the api may write an adapter.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind

from afina.errors import BaseRefused, InvalidRequest
from afina.model.folder import vet_folder, vet_safetensors
from afina.model.gguf_shapes import Shape
from afina.model.gguf_words import Words, read_words

_BLOCK: Final = 32
"""Values that share a scale in the formats of 8 and 4 bits."""
_FLOATS: Final = {"F32": "<f4", "F16": "<f2", "F64": "<f8"}
_PAIR: Final = "base_model.model."


class Weights(enum.StrEnum):
    """How matrices are stored."""

    F32 = "f32"
    BF16 = "bf16"
    F16 = "f16"
    Q8_0 = "q8_0"
    Q4_1 = "q4_1"
    Q4_0 = "q4_0"


_KINDS: Final = {kind: Kind[kind.name] for kind in Weights}


@dataclass(frozen=True)
class Talk:
    """How the model is talked to; its folder says it in ways that `afina.text` reads."""

    template: str
    end_token: int
    """What ends a turn."""
    opening: tuple[int, ...] = ()
    """Ids that stand before a text of its own; llama.cpp knows one, the beginning's."""


@dataclass(frozen=True)
class Label:
    """What the file says of itself."""

    name: str
    licence: str | None = None
    told: Mapping[str, str] = field(default_factory=dict)
    """Further facts, by name below `afina.`."""


def vet_model(folder: Path) -> tuple[Shape, Words]:
    """What llama.cpp is told of the network and of the tokenizer of `folder`. Raises BaseRefused
    for what it has no place for; a base and what is merged from it are refused alike."""
    shape = Shape(_json(folder / "config.json"))
    text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    return shape, read_words(text, shape.vocab_size)


def write_model(
    folder: Path,
    target: Path,
    talk: Talk,
    label: Label,
    weights: Weights = Weights.BF16,
    progress: Callable[[str], None] = lambda _: None,
) -> None:
    """Writes the model of `folder` as the file `target`, which must not exist. Raises BaseRefused
    for a network or tokenizer that llama.cpp has no place for."""
    vet_folder(folder)
    config = _json(folder / "config.json")
    shape, words = vet_model(folder)
    tensors = list(_tensors(folder, shape, bool(config.get("tie_word_embeddings"))))
    with _File(target, shape.architecture) as file:
        writer = file.writer
        writer.add_type(gguf.GGUFType.MODEL)
        _put_label(writer, label)
        for fact, value in shape.facts().items():
            _put(writer, fact, value)
        name = "ALL_F32" if weights is Weights.F32 else f"MOSTLY_{weights.name}"
        writer.add_file_type(gguf.LlamaFileType[name])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(words.splitter)
        writer.add_token_list(words.texts)
        writer.add_token_types(words.kinds)
        writer.add_token_merges(words.merges)
        _put_talk(writer, folder, talk, words.texts)
        factors = shape.rope_factors()
        if factors is not None:
            file.add("rope_freqs.weight", factors.shape, Kind.F32, lambda _: factors)
        for tensor in tensors:
            file.put(tensor, _stored_as(tensor, weights), shape)
        progress(f"Writing {target.name} …")
        file.write()


@dataclass(frozen=True)
class AdapterFiles:
    """Where an adapter's parts lie, and the folder of the base that it was tuned from."""

    config: Path
    matrices: Path
    base: Path


def write_adapter(adapter: AdapterFiles, target: Path, label: Label) -> None:
    """Writes a LoRA adapter as the file `target`, its matrices in 32 bits. It takes the base's file
    beside it to answer. Raises BaseRefused as `write_model` does."""
    config = _json(adapter.config)
    if config.get("use_dora"):
        raise BaseRefused(
            "The tune has lengths of output rows (DoRA), which llama.cpp's adapters do not hold.",
            remedy="Export it merged with its base.",
        )
    shape = Shape(_json(adapter.base / "config.json"))
    rank, alpha = int(config["r"]), float(config["lora_alpha"])
    if config.get("use_rslora"):
        alpha *= rank**0.5  # llama.cpp divides by the rank, this adapter by its root
    with _File(target, shape.architecture) as file:
        writer = file.writer
        writer.add_type(gguf.GGUFType.ADAPTER)
        _put_label(writer, label)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
        for tensor in sorted(_read(adapter.matrices), key=lambda t: t.name):
            layer, side = _layer_and_side(tensor.name)
            # What the layer reads is in one order everywhere; what it writes may be in llama.cpp's.
            name = f"{shape.layer_name(layer)}.lora_{side.lower()}"
            file.put(replace(tensor, name=name), Kind.F32, shape)
        file.write()


@dataclass(frozen=True)
class _Tensor:
    """A tensor in a safetensors file."""

    name: str
    shape: tuple[int, ...]
    path: Path
    dtype: str
    span: tuple[int, int]

    def as_(self, kind: Kind, shape: Shape) -> np.ndarray:
        """Its values in llama.cpp's order, as `kind` stores them. What is stored so already is
        copied bit by bit."""
        if self.dtype == "BF16" and kind is Kind.BF16:
            return shape.arranged(self.name, self._raw().view("<u2").reshape(self.shape))
        values = shape.arranged(self.name, self._floats())
        stored: np.ndarray = gguf.quantize(np.ascontiguousarray(values), kind)
        return stored

    def _raw(self) -> Any:
        start, end = self.span
        return np.fromfile(self.path, np.uint8, end - start, offset=start)

    def _floats(self) -> np.ndarray:
        raw = self._raw()
        if self.dtype == "BF16":
            wide: np.ndarray = (raw.view("<u2").astype("<u4") << 16).view("<f4")
        else:
            wide = raw.view(_FLOATS[self.dtype]).astype(np.float32, copy=False)
        return wide.reshape(self.shape)


def _read(path: Path) -> Iterator[_Tensor]:
    header = vet_safetensors(path)
    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in {*_FLOATS, "BF16"}:
            raise InvalidRequest(f"{name} is stored as {entry['dtype']}, not as floats.")
        first, last = entry["data_offsets"]
        span = start + first, start + last
        yield _Tensor(name, tuple(entry["shape"]), path, entry["dtype"], span)


def _tensors(folder: Path, shape: Shape, tied: bool) -> Iterator[_Tensor]:
    """A folder's tensors under llama.cpp's names. A head that is the embedding is left to it."""
    for path in sorted(folder.glob("*.safetensors")):
        for tensor in _read(path):
            if (tied and tensor.name == "lm_head.weight") or tensor.name.endswith("inv_freq"):
                continue
            yield replace(tensor, name=shape.tensor_name(tensor.name))


def _stored_as(tensor: _Tensor, weights: Weights) -> Kind:
    if len(tensor.shape) == 1 or weights is Weights.F32:
        return Kind.F32
    if weights in {Weights.BF16, Weights.F16}:
        return _KINDS[weights]
    if tensor.shape[-1] % _BLOCK:
        return Kind.BF16
    # Words are looked up and answered by these rows: in 4 bits they would lose the most.
    outer = tensor.name in {"token_embd.weight", "output.weight"}
    return Kind.Q8_0 if outer else _KINDS[weights]


class _File:
    """A GGUF file that is written whole, under another name first."""

    def __init__(self, target: Path, architecture: str) -> None:
        if target.exists():
            raise InvalidRequest(f"The file {target} is there already.", remedy="Name another.")
        self._target = target
        self._partial = target.with_name(f".{target.name}.part")
        self.writer = gguf.GGUFWriter(self._partial, architecture)
        self._values: list[tuple[Kind, Callable[[Kind], np.ndarray]]] = []

    def __enter__(self) -> _File:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.writer.close()
        if kind is None:
            self._partial.rename(self._target)
        else:
            self._partial.unlink(missing_ok=True)

    def put(self, tensor: _Tensor, kind: Kind, shape: Shape) -> None:
        """Announces a tensor of a safetensors file."""
        self.add(tensor.name, tensor.shape, kind, lambda kind: tensor.as_(kind, shape))

    def add(
        self, name: str, shape: tuple[int, ...], kind: Kind, values: Callable[[Kind], np.ndarray]
    ) -> None:
        """Announces a tensor; its values, stored as its kind, are asked for when it is written."""
        block, size = gguf.GGML_QUANT_SIZES[kind]
        count = int(np.prod(shape))
        self.writer.add_tensor_info(
            name, shape, np.dtype(np.float32), count // block * size, raw_dtype=kind
        )
        self._values.append((kind, values))

    def write(self) -> None:
        """Writes everything."""
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_ti_data_to_file()
        for kind, values in self._values:
            self.writer.write_tensor_data(np.ascontiguousarray(values(kind)))


def _put(writer: Any, name: str, value: int | float | str) -> None:
    if isinstance(value, str):
        writer.add_string(name, value)
    elif isinstance(value, float):
        writer.add_float32(name, value)
    else:
        writer.add_uint32(name, value)


def _put_label(writer: Any, label: Label) -> None:
    writer.add_name(label.name)
    if label.licence:
        writer.add_license(label.licence)
    for name, value in label.told.items():
        writer.add_string(f"afina.{name}", value)


def _put_talk(writer: Any, folder: Path, talk: Talk, texts: list[str]) -> None:
    settings = _json(folder / "tokenizer_config.json")
    generation = _json(folder / "generation_config.json")
    ids = {text: id for id, text in enumerate(texts)}
    for name, put in (
        ("bos", writer.add_bos_token_id),
        ("unk", writer.add_unk_token_id),
        ("pad", writer.add_pad_token_id),
    ):
        named = settings.get(f"{name}_token")
        text = named.get("content") if isinstance(named, dict) else named
        if text in ids:
            put(ids[text])
    ends = generation.get("eos_token_id", talk.end_token)
    writer.add_eos_token_id(ends[0] if isinstance(ends, list) else ends)
    writer.add_eot_token_id(talk.end_token)
    writer.add_add_bos_token(bool(talk.opening))
    writer.add_add_space_prefix(False)
    writer.add_chat_template(talk.template)


def _layer_and_side(name: str) -> tuple[str, str]:
    layer, _, side = name.removesuffix(".weight").rpartition(".lora_")
    if not layer.startswith(_PAIR) or side not in {"A", "B"}:
        raise InvalidRequest(f"The adapter holds {name}, which is no LoRA matrix.")
    return layer.removeprefix(_PAIR), side


def _json(path: Path) -> dict[str, Any]:
    try:
        found: Any = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise InvalidRequest(f"{path.name} is not JSON: {error}.") from None
    return found if isinstance(found, dict) else {}
