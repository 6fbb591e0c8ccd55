"""Strict JSON for frozen dataclasses: what a file says is exactly what the type says.

`decode` refuses unknown and missing keys and wrong types by naming the path to the value
(`spec.optimizer.betas`), so that a damaged or foreign file is never half understood. What a type
asks for is worked out once: a list of a hundred jobs decodes some hundreds of these.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar, Union

T = TypeVar("T")
_Reader = Callable[[Any, Any], Any]
"""Takes a value and its place: a text, or a pair of the place around it and a key or a number,
which becomes a text only when something is wrong."""
_PLAIN: Final = frozenset({str, int, float, bool})


def encode(value: object) -> Any:
    """`value` as what `json.dumps` takes: dataclasses become objects, tuples arrays."""
    if value is None or type(value) in _PLAIN:
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: encode(getattr(value, name)) for name in field_names(type(value))}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    return value


def field_names(cls: Any) -> tuple[str, ...]:
    """The fields of a dataclass, worked out once."""
    return _field_names(cls)


@functools.cache
def _field_names(cls: Any) -> tuple[str, ...]:
    return tuple(f.name for f in dataclasses.fields(cls))


def decode(cls: type[T], data: object, where: str = "$") -> T:
    """`data`, as `json.loads` gave it, as a `cls`. Raises ValueError naming the place."""
    return typing.cast(T, _reader(cls)(data, where))


def _reader(kind: Any) -> _Reader:
    origin = typing.get_origin(kind)
    if kind is Any or kind is object:
        return lambda data, _: data
    if origin in (Union, types.UnionType):
        return _union_reader(typing.get_args(kind))
    if origin is typing.Literal:
        return functools.partial(_read_literal, typing.get_args(kind))
    if dataclasses.is_dataclass(kind):
        return _dataclass_reader(typing.cast(type, kind))
    if origin in (tuple, list):
        return _sequence_reader(kind, origin)
    if origin in (dict, Mapping):
        return functools.partial(_read_mapping, _reader(typing.get_args(kind)[1]))
    if kind in (str, int, float, bool):
        return _plain_reader(kind)
    return functools.partial(_read_scalar, kind)


def _read_literal(allowed: tuple[Any, ...], data: Any, where: Any) -> Any:
    if data in allowed:
        return data
    raise ValueError(f"{_path(where)}: expected one of {allowed}, found {data!r}")


def _union_reader(kinds: tuple[Any, ...]) -> _Reader:
    takes_none = type(None) in kinds
    readers = [_reader(kind) for kind in kinds if kind is not type(None)]
    # What is exactly of such a type needs no trial, unless its text could name something else.
    named = any(isinstance(kind, type) and issubclass(kind, enum.Enum) for kind in kinds)
    plain: frozenset[Any] = frozenset() if named else frozenset(kinds) & _PLAIN

    def read(data: Any, where: Any) -> Any:
        if data is None and takes_none:
            return None
        if type(data) in plain:
            return data
        problems = []
        for reader in readers:
            try:
                return reader(data, where)
            except ValueError as error:
                problems.append(str(error))
        raise ValueError(" or ".join(problems) or f"{_path(where)}: expected null")

    return read


@functools.cache
def _dataclass_reader(cls: type) -> _Reader:
    # A type may hold itself, so the fields' readers are made when the first value comes.
    readers: dict[str, _Reader] = {}
    required: set[str] = set()

    def prepare() -> None:
        hints = typing.get_type_hints(cls)
        missing = dataclasses.MISSING
        for f in dataclasses.fields(cls):
            if f.default is missing and f.default_factory is missing:
                required.add(f.name)
        readers.update({f.name: _reader(hints[f.name]) for f in dataclasses.fields(cls)})

    def read(data: Any, where: Any) -> Any:
        if not isinstance(data, dict):
            raise ValueError(f"{_path(where)}: expected an object for {cls.__name__}")
        if not readers:
            prepare()
        if not data.keys() <= readers.keys():
            unknown = sorted(set(data) - set(readers))
            raise ValueError(f"{_path(where)}: unknown key {unknown[0]!r}")
        values = {}
        for name, reader in readers.items():
            if name in data:
                values[name] = reader(data[name], (where, name))
            elif name in required:
                raise ValueError(f"{_path(where)}: missing key {name!r}")
        return cls(**values)

    return read


def _sequence_reader(kind: Any, origin: type) -> _Reader:
    args = typing.get_args(kind)
    if origin is tuple and not (len(args) == 2 and args[1] is Ellipsis):
        return functools.partial(_read_fixed, [_reader(arg) for arg in args])
    one = _reader(args[0])

    def read(data: Any, where: Any) -> Any:
        if not isinstance(data, list | tuple):
            raise ValueError(f"{_path(where)}: expected an array")
        return origin(one(item, (where, i)) for i, item in enumerate(data))

    return read


def _read_fixed(readers: list[_Reader], data: Any, where: Any) -> tuple[Any, ...]:
    if not isinstance(data, list | tuple):
        raise ValueError(f"{_path(where)}: expected an array")
    if len(readers) != len(data):
        raise ValueError(f"{_path(where)}: expected {len(readers)} items, found {len(data)}")
    pairs = zip(readers, data, strict=True)
    return tuple(reader(item, (where, i)) for i, (reader, item) in enumerate(pairs))


def _read_mapping(one: _Reader, data: Any, where: Any) -> dict[Any, Any]:
    if not isinstance(data, dict):
        raise ValueError(f"{_path(where)}: expected an object")
    return {key: one(item, (where, key)) for key, item in data.items()}


def _plain_reader(kind: type) -> _Reader:
    def read(data: Any, where: Any) -> Any:
        return data if type(data) is kind else _read_scalar(kind, data, where)

    return read


def _read_scalar(kind: Any, data: Any, where: Any) -> Any:
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        try:
            return kind(data)
        except ValueError:
            raise ValueError(f"{_path(where)}: {data!r} is not a {kind.__name__}") from None
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if kind is int and isinstance(data, bool):
        raise ValueError(f"{_path(where)}: expected an integer, found a boolean")
    if isinstance(kind, type) and isinstance(data, kind):
        return data
    name = getattr(kind, "__name__", kind)
    raise ValueError(f"{_path(where)}: expected {name}, found {data!r}")


def _path(where: Any) -> str:
    """A place in words: `$.optimizer.betas[1]`."""
    steps = []
    while isinstance(where, tuple):
        where, step = where
        steps.append(f"[{step}]" if isinstance(step, int) else f".{step}")
    return str(where) + "".join(reversed(steps))
