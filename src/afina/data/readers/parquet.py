"""Parquet, a batch of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from afina.data.readers.disguises import Disguise, by_content
from afina.data.readers.records import Place, ReadOptions, Record, Source
from afina.errors import DataUnreadable

_BATCH_ROWS: Final = 1024
_MARK: Final = b"PAR1"
_RENAMED: Final = "Give its format with --format: csv, json or jsonl, say."
_MOST_UNPACKED: Final = 1 << 30
_UNSUSPECTED_ROWS: Final = 1_000_000
_ROWS_A_BYTE: Final = 20


def read_parquet(path: Path, options: ReadOptions) -> Source:  # noqa: ARG001  (as all readers)
    """A Parquet file; nested columns stay nested, so chats can be read as they are."""
    from pyarrow import ArrowException, parquet, types  # slow to import, and few need it

    try:
        file = parquet.ParquetFile(path)
        _refuse_bombs(file.metadata, path)
        schema = file.schema_arrow
        columns = tuple(schema.names)
    except (ArrowException, OSError, ValueError) as error:  # names that are no UTF-8, for one
        if (why := _no_parquet(path)) is not None:
            raise why.refusal(path.name) from None
        raise DataUnreadable(
            f"{path.name} cannot be read as Parquet: {type(error).__name__}.",
            remedy="Write the file again.",
            code="file_damaged",
        ) from None
    place = Place(file.metadata.num_rows)
    nested = frozenset(field.name for field in schema if types.is_nested(field.type))
    return Source(columns=columns, records=_records(file, path, place), place=place, nested=nested)


def _no_parquet(path: Path) -> Disguise | None:
    """What a file is that has no marks of Parquet at both ends, and the remedy."""
    if path.stat().st_size == 0:
        return Disguise("empty", "Give a file with rows.", "file_empty")
    with path.open("rb") as file:
        head = file.read(len(_MARK))
        file.seek(max(0, path.stat().st_size - len(_MARK)))
        tail = file.read()
    if head == _MARK and tail != _MARK:
        return Disguise(
            "cut short: the end of a Parquet file is missing",
            "Copy or download it again.",
            "file_damaged",
        )
    if head != _MARK:
        found = by_content(path)
        is_known = found is not None and found.what != "plain text"
        return found if is_known else Disguise("no Parquet file", _RENAMED, "file_other_name")
    return None


def _refuse_bombs(facts: Any, path: Path) -> None:
    """Columns of a row group are unpacked as a whole, and rows cost their readers memory and disk
    however well they were packed. Single columns are not asked: where their facts contradict each
    other, the package ends the process."""
    for number in range(facts.num_row_groups):
        unpacked = facts.row_group(number).total_byte_size
        if unpacked > _MOST_UNPACKED:
            raise DataUnreadable(
                f"{path.name} has a row group of {unpacked:,} bytes.",
                remedy="Write it with smaller row groups, of 100,000 rows say.",
            )
    if facts.num_rows > max(_UNSUSPECTED_ROWS, _ROWS_A_BYTE * path.stat().st_size):
        raise DataUnreadable(
            f"{path.name} claims {facts.num_rows:,} rows in {path.stat().st_size:,} bytes.",
            remedy="Write the file again, with the rows that are meant.",
        )


def _records(file: Any, path: Path, place: Place) -> Iterator[Record]:
    from pyarrow import ArrowException

    number = 0
    place.follow(lambda: number)
    try:
        for batch in file.iter_batches(batch_size=_BATCH_ROWS):
            for values in batch.to_pylist():
                number += 1
                yield Record(number, _without_nulls(values))
    except (ArrowException, OSError, ValueError) as error:
        raise DataUnreadable(
            f"{path.name} is damaged after row {number}: {type(error).__name__}.",
            remedy="Write the file again.",
            code="file_damaged",
        ) from None


def _without_nulls(value: Any) -> Any:
    """Structs in Parquet have every field; those without a value were not there."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
