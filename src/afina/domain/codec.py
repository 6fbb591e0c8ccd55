"""Strict JSON for frozen dataclasses: what a file says is exactly what the type says.

`decode` refuses unknown and missing keys and wrong types by naming the path to the value
(`spec.optimizer.betas`), so that a damaged or foreign file is never half understood.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar, Union

T = TypeVar("T")


def encode(value: object) -> Any:
    """`value` as what `json.dumps` takes: dataclasses become objects, tuples arrays."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    return value


def decode(cls: type[T], data: object, where: str = "$") -> T:
    """`data`, as `json.loads` gave it, as a `cls`. Raises ValueError naming the place."""
    return typing.cast(T, _decode(cls, data, where))


def _decode(kind: Any, data: Any, where: str) -> Any:
    origin = typing.get_origin(kind)
    if kind is Any or kind is object:
        return data
    if origin in (Union, types.UnionType):
        return _decode_union(typing.get_args(kind), data, where)
    if origin is typing.Literal:
        if data in typing.get_args(kind):
            return data
        raise ValueError(f"{where}: expected one of {typing.get_args(kind)}, found {data!r}")
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(typing.cast(type, kind), data, where)
    if origin in (tuple, list):
        return _decode_sequence(kind, origin, data, where)
    if origin in (dict, Mapping):
        if not isinstance(data, dict):
            raise ValueError(f"{where}: expected an object")
        value_kind = typing.get_args(kind)[1]
        return {key: _decode(value_kind, item, f"{where}.{key}") for key, item in data.items()}
    return _decode_scalar(kind, data, where)


def _decode_union(kinds: tuple[Any, ...], data: Any, where: str) -> Any:
    problems = []
    for kind in kinds:
        if kind is type(None):
            if data is None:
                return None
            continue
        try:
            return _decode(kind, data, where)
        except ValueError as error:
            problems.append(str(error))
    raise ValueError(" or ".join(problems) or f"{where}: expected null")


def _decode_dataclass(cls: type, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise ValueError(f"{where}: expected an object for {cls.__name__}")
    hints = _hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    unknown = sorted(set(data) - set(fields))
    if unknown:
        raise ValueError(f"{where}: unknown key {unknown[0]!r}")
    values = {}
    for name, field in fields.items():
        if name in data:
            values[name] = _decode(hints[name], data[name], f"{where}.{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{where}: missing key {name!r}")
    return cls(**values)


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    """Working out the hints costs more than all the rest of a decoding."""
    return typing.get_type_hints(cls)


def _decode_sequence(kind: Any, origin: type, data: Any, where: str) -> Any:
    if not isinstance(data, list | tuple):
        raise ValueError(f"{where}: expected an array")
    args = typing.get_args(kind)
    if origin is tuple and not (len(args) == 2 and args[1] is Ellipsis):
        if len(args) != len(data):
            raise ValueError(f"{where}: expected {len(args)} items, found {len(data)}")
        pairs = zip(args, data, strict=True)
        return tuple(_decode(k, item, f"{where}[{i}]") for i, (k, item) in enumerate(pairs))
    items = (_decode(args[0], item, f"{where}[{i}]") for i, item in enumerate(data))
    return origin(items)


def _decode_scalar(kind: Any, data: Any, where: str) -> Any:
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        try:
            return kind(data)
        except ValueError:
            raise ValueError(f"{where}: {data!r} is not a {kind.__name__}") from None
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if kind is int and isinstance(data, bool):
        raise ValueError(f"{where}: expected an integer, found a boolean")
    if isinstance(kind, type) and isinstance(data, kind):
        return data
    raise ValueError(f"{where}: expected {getattr(kind, '__name__', kind)}, found {data!r}")
