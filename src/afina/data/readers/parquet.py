"""Parquet, a batch of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from afina.data.readers.records import ReadOptions, Record, Source
from afina.errors import DataUnreadable

_BATCH_ROWS: Final = 1024


def read_parquet(path: Path, options: ReadOptions) -> Source:  # noqa: ARG001  (as all readers)
    """A Parquet file; nested columns stay nested, so chats can be read as they are."""
    from pyarrow import ArrowException, parquet  # slow to import, and few need it

    try:
        file = parquet.ParquetFile(path)
    except (ArrowException, OSError) as error:
        raise DataUnreadable(
            f"{path.name} cannot be read as Parquet: {type(error).__name__}.",
            remedy="Write the file again.",
        ) from None
    return Source(columns=tuple(file.schema_arrow.names), records=_records(file, path))


def _records(file: Any, path: Path) -> Iterator[Record]:
    from pyarrow import ArrowException

    number = 0
    try:
        for batch in file.iter_batches(batch_size=_BATCH_ROWS):
            for values in batch.to_pylist():
                number += 1
                yield Record(number, _without_nulls(values))
    except (ArrowException, OSError) as error:
        raise DataUnreadable(
            f"{path.name} is damaged after row {number}: {type(error).__name__}.",
            remedy="Write the file again.",
        ) from None


def _without_nulls(value: Any) -> Any:
    """Structs in Parquet have every field; those without a value were not there."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
