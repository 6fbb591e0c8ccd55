"""Physical lines, their numbers, and memory that stays flat."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from afina.data import lines as lines_module
from afina.data.lines import LineReader


def read(path: Path, content: bytes, cap: int = 1000) -> list[tuple[int, bytes | None]]:
    path.write_bytes(content)
    return [(line.number, line.raw) for line in LineReader(path, cap)]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", []),
        (b"a", [(1, b"a")]),
        (b"a\n", [(1, b"a")]),
        (b"a\nb\n", [(1, b"a"), (2, b"b")]),
        (b"a\r\nb\r\n", [(1, b"a"), (2, b"b")]),
        (b"a\rb\r", [(1, b"a"), (2, b"b")]),
        (b"a\n\r\nb", [(1, b"a"), (2, b""), (3, b"b")]),
        (b"\n\na", [(1, b""), (2, b""), (3, b"a")]),
        ("a\u2028b\u0085c\x0bd\n".encode(), [(1, "a\u2028b\u0085c\x0bd".encode())]),
        (b"\xef\xbb\xbfa\nb", [(1, b"a"), (2, b"b")]),
        (b"a\xef\xbb\xbf\n", [(1, b"a\xef\xbb\xbf")]),
    ],
)
@pytest.mark.parametrize("block", [1, 2, 3, 1 << 20])
def test_lines_end_as_editors_count_them(
    content: bytes,
    expected: list[tuple[int, bytes]],
    block: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if block < 3 and content.startswith(b"\xef"):
        return  # a real block is never smaller than the mark
    monkeypatch.setattr(lines_module, "_BLOCK_BYTES", block)
    assert read(tmp_path / "f", content) == expected


def test_a_line_over_the_cap_is_known_by_its_size_alone(tmp_path: Path) -> None:
    found = list(reader_of(tmp_path, b"ab\n" + b"x" * 50 + b"\ncd", cap=10))
    assert [(line.number, line.raw, line.size) for line in found] == [
        (1, b"ab", 2),
        (2, None, 50),
        (3, b"cd", 2),
    ]


def test_a_huge_line_costs_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with path.open("wb") as file:
        file.truncate(300 << 20)  # one line of zeros, sparse on disk
    tracemalloc.start()
    (line,) = LineReader(path, 1 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert line.raw is None
    assert line.size == 300 << 20
    assert peak < 16 << 20


def reader_of(folder: Path, content: bytes, cap: int) -> LineReader:
    (folder / "f").write_bytes(content)
    return LineReader(folder / "f", cap)
