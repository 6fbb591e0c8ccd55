"""Multipart forms, read as they arrive: fields into memory, the one file onto the disk.

Fields and file may come in any order. Everything is capped while it is read; what the form must
not hold is refused by name. The file goes straight to where blobs are staged, hashed on its way;
what a crash leaves there is swept.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from anyio import to_thread
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from afina.api.body import arriving, too_large
from afina.errors import InvalidRequest, TooLarge
from afina.store.blobs import BlobWriter, StagedBlob

_FIELD_BYTES: Final = 4096
_FIELDS: Final = 32
_WRITE_BYTES: Final = 512 * 1024
_SLACK_BYTES: Final = 256 * 1024
"""For boundaries, headers and fields beside the file."""
_CODE: Final = "invalid_multipart"


@dataclass(frozen=True)
class FileField:
    """The one file that a form holds: its field, its limit, and what opens a place for it."""

    name: str
    max_bytes: int
    open: Callable[[], BlobWriter]


@dataclass
class Form:
    """What a form held. `close` it when the file has been stored."""

    pairs: list[tuple[str, str]] = field(default_factory=list)
    filename: str | None = None
    staged: StagedBlob | None = None
    writer: BlobWriter | None = None

    def close(self) -> None:
        """Drops the staged bytes, unless they have got their name."""
        if self.writer is not None:
            self.writer.discard()


async def read_form(request: Request, file: FileField) -> Form:
    """The form of a request with one file.

    Raises InvalidRequest naming what is wrong, TooLarge beyond its limit, TooSlow.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > file.max_bytes + _SLACK_BYTES:
        raise too_large(file.max_bytes)
    reader = _Reader(file)
    try:
        parser = MultipartParser(_boundary(request), reader.callbacks())  # type: ignore[arg-type]
        seen = 0
        async for piece in arriving(request):
            seen += len(piece)
            if seen > file.max_bytes + _SLACK_BYTES:
                raise too_large(file.max_bytes)
            parser.write(piece)
            await reader.flush(_WRITE_BYTES)
        await reader.finish()
    except MultipartParseError:
        reader.form.close()
        raise _malformed("a part or its headers are malformed") from None
    except BaseException:
        reader.form.close()
        raise
    return reader.form


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data":
        raise InvalidRequest(
            "The content type must be multipart/form-data with a file and its purpose.",
            code="unsupported_content_type",
        )
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 200:
        raise _malformed("the content type names no boundary")
    return boundary


class _Reader:
    """Takes the parser's callbacks."""

    def __init__(self, file: FileField) -> None:
        self.form = Form()
        self._file_field = file.name
        self._file = file
        self._header = (bytearray(), bytearray())
        self._disposition = b""
        self._name: str | None = None
        self._value = bytearray()
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._file_bytes = 0
        self._ended = False

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._begin_part,
            "on_header_begin": self._begin_header,
            "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._begin_value,
            "on_part_data": self._take,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }

    async def finish(self) -> None:
        """Checks that the form is whole, and syncs the file."""
        if not self._ended:
            raise _malformed("the body ends before its closing boundary")
        if self.form.writer is not None:
            await self.flush(0)
            self.form.staged = await to_thread.run_sync(self.form.writer.finish)

    async def flush(self, beyond: int) -> None:
        """Writes what is pending, in a thread, once there is more than `beyond` of it."""
        if self._pending and self._pending_bytes >= beyond and self.form.writer is not None:
            data = b"".join(self._pending)
            self._pending.clear()
            self._pending_bytes = 0
            await to_thread.run_sync(self.form.writer.write, data)

    def _begin_part(self) -> None:
        self._disposition = b""
        self._value = bytearray()

    def _begin_header(self) -> None:
        self._header = (bytearray(), bytearray())

    def _end_header(self) -> None:
        if bytes(self._header[0]).lower() == b"content-disposition":
            self._disposition = bytes(self._header[1])

    def _begin_value(self) -> None:
        kind, options = parse_options_header(self._disposition)
        if kind != b"form-data" or b"name" not in options:
            raise _malformed("a part has no name")
        self._name = _text(options[b"name"], "a field's name")
        if self._name == self._file_field:
            self._begin_file(options.get(b"filename"))
        elif b"filename" in options:
            shown = self._name[:64]
            raise InvalidRequest(
                f"Unknown parameter: '{shown}'. The file's field is '{self._file_field}'.",
                param=shown,
                code="unknown_parameter",
            )
        elif len(self.form.pairs) >= _FIELDS:
            raise _malformed(f"there are more than {_FIELDS} fields")

    def _begin_file(self, filename: bytes | None) -> None:
        param = self._file_field
        if self.form.writer is not None:
            raise InvalidRequest(
                f"'{param}' is given more than once.", param=param, code="invalid_value"
            )
        if filename is None:
            raise InvalidRequest(
                f"Invalid type for '{param}': expected a file with a name, but got a plain field.",
                param=param,
                code="invalid_type",
            )
        self.form.filename = _file_name(_text(filename, "the file's name"), param)
        self.form.writer = self._file.open()

    def _take(self, data: bytes, start: int, end: int) -> None:
        if self._name == self._file_field:
            self._file_bytes += end - start
            if self._file_bytes > self._file.max_bytes:
                raise TooLarge(
                    f"The file is larger than {self._file.max_bytes} bytes.",
                    param=self._file_field,
                    code="request_too_large",
                    remedy="Split it, or raise the setting max_upload_bytes.",
                )
            self._pending.append(data[start:end])
            self._pending_bytes += end - start
            return
        self._value += data[start:end]
        if len(self._value) > _FIELD_BYTES:
            shown = (self._name or "")[:64]
            raise InvalidRequest(
                f"Invalid '{shown}': longer than {_FIELD_BYTES} bytes.",
                param=shown,
                code="string_above_max_length",
            )

    def _end_part(self) -> None:
        if self._name is not None and self._name != self._file_field:
            self.form.pairs.append((self._name, _text(bytes(self._value), f"'{self._name[:64]}'")))
        self._name = None

    def _end(self) -> None:
        self._ended = True


def _file_name(name: str, param: str) -> str:
    """The last part of the name: older clients send the path that the file had on their machine.
    It is shown, and never used as a path here."""
    name = re.split(r"[/\\]", name)[-1]
    unfit = not name.isprintable() or name in (".", "..")
    if unfit or not 1 <= len(name) <= 255:
        raise InvalidRequest(
            "The file's name must have 1 to 255 printable characters.",
            param=param,
            code="invalid_value",
        )
    return name


def _text(raw: bytes, what: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise _malformed(f"{what} is not valid UTF-8") from None


def _malformed(why: str) -> InvalidRequest:
    return InvalidRequest(f"The multipart form could not be read: {why}.", code=_CODE)
