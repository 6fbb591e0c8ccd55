"""A file in parts says what the whole says: same lines, same findings, same shards."""

from __future__ import annotations

import json
import random
import sys
from array import array
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.tiny_chat import FAMILIES, make_folder

from afina.data import chunks, inspection
from afina.data.check import CheckLimits, CheckReport, check_file
from afina.data.chunks import Chunk, chunks_of
from afina.data.content.survey import check_content
from afina.data.distributions import measure_rows
from afina.data.equal import equal_rows
from afina.data.kinds import RowKind
from afina.data.lines import LineReader
from afina.data.rules.examples import EXAMPLES
from afina.data.shards import ShardOptions, build_shards
from afina.errors import InvalidRequest
from afina.text.renderer import Renderer

LAW = settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SCRAPS = st.sampled_from([b"\n", b"\r", b"\r\n", b"a", b"bc", b"\xef\xbb\xbf", b" ", b"\n\n"])
GOOD = (
    '{"messages": [{"role": "user", "content": "Hi %d"}, {"role": "assistant", "content": "Yes"}]}'
)
LINES = st.one_of(
    st.integers(0, 5).map(lambda n: (GOOD % n).encode()),
    st.sampled_from([b"", b" ", b"{", b"\xff", b"[" * 90, b"x" * 300]),
    st.sampled_from([text.encode() for e in EXAMPLES.values() for text in (e.bad, e.good)]),
)
FILES = st.tuples(st.lists(LINES, max_size=25), st.sampled_from([b"\n", b"\r\n"])).map(
    lambda drawn: drawn[1].join(drawn[0])
)
LIMITS = st.sampled_from(
    [CheckLimits(), CheckLimits(min_rows=0, max_findings=2, max_bad_rows=4, max_line_bytes=200)]
)


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> Renderer:
    return Renderer.load(make_folder(tmp_path_factory.mktemp("chatml"), FAMILIES["chatml"]))


def said(report: CheckReport) -> tuple[Any, ...]:
    """A report with the order of its counts, which people read."""
    return report, list(report.counts.items()), list(report.bad_lines)


@LAW
@given(content=st.lists(SCRAPS, max_size=60).map(b"".join), size=st.integers(1, 9))
@example(content=b"a\r\nb\n", size=1)
def test_parts_hold_every_line_under_its_own_number(
    content: bytes, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "_BLOCK_BYTES", size + 2)
    (tmp_path / "f").write_bytes(content)
    parts = list(chunks_of(tmp_path / "f", size))
    assert [part.start for part in parts[1:]] == [part.end for part in parts[:-1]]
    assert (parts[0].start, parts[-1].end) == (0, len(content))
    found = [(x.number, x.raw) for part in parts for x in part.lines(tmp_path / "f", 100)]
    assert found == [(x.number, x.raw) for x in LineReader(tmp_path / "f", 100)]


@LAW
@given(content=FILES, limits=LIMITS, size=st.sampled_from([1, 60, 500]))
def test_the_sum_of_the_parts_is_the_whole(
    content: bytes, limits: CheckLimits, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    path.write_bytes(content)
    whole, compared = said(check_file(path, limits, None)), check_content(path)
    monkeypatch.setattr(chunks, "CHUNK_BYTES", size)
    assert said(check_file(path, limits, None)) == whole
    assert check_content(path) == compared


@LAW
@given(content=FILES, limits=LIMITS)
def test_the_quick_yes_changes_no_report(
    content: bytes, limits: CheckLimits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    path.write_bytes(content)
    quick = said(check_file(path, limits, None))
    monkeypatch.setattr(inspection, "plain_rows", lambda *_: None)
    assert said(check_file(path, limits, None)) == quick


@given(values=st.lists(st.integers(0, 5), max_size=30))
def test_equal_rows_name_the_first_of_their_kind(values: list[int]) -> None:
    import numpy as np

    rows, firsts = equal_rows(np.array(values, np.uint64))
    expected = [(n, values.index(v)) for n, v in enumerate(values) if values.index(v) != n]
    assert list(zip(rows.tolist(), firsts.tolist(), strict=True)) == expected


def big_file(path: Path) -> Path:
    """Some hundred rows of many sorts, with copies and errors."""
    chance = random.Random(5)
    words = ["the", "claim", "was", "reported", "policy", "covers", "damage", "by", "water", "in"]
    lines = []
    for n in range(400):
        asked, answer = (" ".join(chance.choices(words, k=chance.randint(4, 30))) for _ in "ab")
        messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
        lines.append(json.dumps({"messages": messages, **({"tools": None} if n % 9 == 0 else {})}))
    lines[50] = lines[60] = "{"
    lines[300] = lines[3]
    path.write_text("\n".join(lines))
    return path


@pytest.mark.long
@pytest.mark.parametrize("executable", [sys.executable, "/bin/false"], ids=["alive", "dead"])
def test_several_processes_say_what_one_says(
    executable: str, renderer: Renderer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where every helper dies: then the work is done here."""
    path = big_file(tmp_path / "f")
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 9000)
    monkeypatch.setattr(sys, "executable", executable)
    limits = CheckLimits()
    one = said(check_file(path, limits, renderer, processes=1))
    assert said(check_file(path, limits, renderer, processes=2)) == one
    hopeless = CheckLimits(max_bad_rows=2)
    assert said(check_file(path, hopeless, None, processes=2)) == said(
        check_file(path, hopeless, None, processes=1)
    )
    assert check_content(path, processes=2) == check_content(path, processes=1)
    assert measure_rows(path, RowKind.CHAT, processes=2) == measure_rows(path, RowKind.CHAT)
    options = ShardOptions(skip_lines=array("q", [51, 61]), shard_tokens=700)
    made = [
        build_shards(path, renderer, tmp_path / str(count), options, processes=count)
        for count in (1, 2)
    ]
    first, second = (
        {file.name: file.read_bytes() for file in Path(spec.path).iterdir()} for spec in made
    )
    assert first == second
    with pytest.raises(InvalidRequest, match="Line 51 "):
        build_shards(path, renderer, tmp_path / "x", processes=2)


def test_a_part_is_read_alone(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"a\nbb\nc\n")
    assert [x.raw for x in Chunk(2, 5, 2).lines(tmp_path / "f", 9)] == [b"bb"]
