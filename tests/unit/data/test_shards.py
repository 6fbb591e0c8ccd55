"""Shards hold every row once, are a function of their inputs, and are whole or not there."""

from __future__ import annotations

import json
from array import array
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tests.tiny_chat import FAMILIES, REASONING_FAMILY, make_folder

from afina.data import tokenising
from afina.data.check import CheckLimits, check_file
from afina.data.shards import MANIFEST, ShardOptions, Shards, build_shards
from afina.errors import DataUnreadable, InvalidRequest
from afina.text.renderer import Renderer


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> Renderer:
    return Renderer.load(make_folder(tmp_path_factory.mktemp("chatml"), FAMILIES["chatml"]))


def chat(n: int) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": f"Question {n}"},
        {"role": "assistant", "content": "word " * (n % 7 + 1)},
    ]


def write(path: Path, rows: int) -> Path:
    lines = [json.dumps({"messages": chat(n)}) for n in range(rows)]
    lines.insert(3, "")
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("batch_rows", [7, 50, 1024])
def test_every_row_is_there_once_in_its_order(
    renderer: Renderer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_rows: int
) -> None:
    monkeypatch.setattr(tokenising, "_BATCH_ROWS", batch_rows)
    blob = write(tmp_path / "f", 50)
    spec = build_shards(blob, renderer, tmp_path / "s", ShardOptions(shard_tokens=200))
    shards = Shards.open(Path(spec.path))
    assert len(list(Path(spec.path).glob("*.safetensors"))) > 5
    assert len(shards) == spec.rows == 50
    for n in range(50):
        ids, learned = shards.row(n)
        expected = renderer.training_row(chat(n))
        assert (ids.tolist(), learned.tolist()) == (expected.ids, expected.learned)
        assert ids.dtype == np.dtype(np.int32)
        assert learned.dtype == np.dtype(np.bool_)
        assert shards.lengths[n] == len(expected.ids)
    assert shards.lines.tolist() == [1, 2, 3, *range(5, 52)]
    assert spec.tokens == int(shards.lengths.sum())
    assert spec.longest_row == int(shards.lengths.max())
    assert spec.learned_tokens == sum(int(shards.row(n)[1].sum()) for n in range(50))
    with pytest.raises(IndexError):
        shards.row(50)


def test_tokens_are_those_that_the_check_counted(renderer: Renderer, tmp_path: Path) -> None:
    blob = write(tmp_path / "f", 30)
    with blob.open("a") as file:
        file.write('\n{"messages": 3}\n')
    report = check_file(blob, CheckLimits(), renderer)
    spec = build_shards(blob, renderer, tmp_path / "s", ShardOptions(skip_lines=report.bad_lines))
    assert (spec.rows, spec.tokens, spec.learned_tokens, spec.longest_row) == (
        report.training_rows,
        report.tokens,
        report.learned_tokens,
        report.longest_row,
    )


def test_building_again_reads_the_manifest_and_changes_nothing(
    renderer: Renderer, tmp_path: Path
) -> None:
    blob = write(tmp_path / "f", 20)
    spec = build_shards(blob, renderer, tmp_path / "s")
    times = {p: p.stat().st_mtime_ns for p in Path(spec.path).iterdir()}
    assert build_shards(blob, renderer, tmp_path / "s") == spec
    assert {p: p.stat().st_mtime_ns for p in Path(spec.path).iterdir()} == times
    elsewhere = build_shards(blob, renderer, tmp_path / "t")
    assert elsewhere.sha256 == spec.sha256


def test_half_built_shards_are_built_again(renderer: Renderer, tmp_path: Path) -> None:
    blob = write(tmp_path / "f", 20)
    spec = build_shards(blob, renderer, tmp_path / "s")
    (Path(spec.path) / MANIFEST).unlink()
    (Path(spec.path) / "shard-00000.safetensors").write_bytes(b"half")
    with pytest.raises(DataUnreadable, match="no whole set"):
        Shards.open(Path(spec.path))
    assert build_shards(blob, renderer, tmp_path / "s") == spec
    assert len(Shards.open(Path(spec.path))) == 20


def test_the_folder_is_named_by_all_that_decides_the_shards(tmp_path: Path) -> None:
    blob, other = write(tmp_path / "f", 20), write(tmp_path / "g", 21)
    renderers = [
        Renderer.load(make_folder(tmp_path / name, FAMILIES[name])) for name in ("chatml", "llama3")
    ]
    options = [ShardOptions(), ShardOptions(array("q", [2])), ShardOptions(max_row_tokens=400)]
    paths = {build_shards(blob, r, tmp_path / "s").path for r in renderers}
    paths |= {build_shards(blob, renderers[0], tmp_path / "s", o).path for o in options}
    paths.add(build_shards(other, renderers[0], tmp_path / "s").path)
    assert len(paths) == 5


def test_a_row_that_the_check_would_have_named_is_refused_by_line(
    renderer: Renderer, tmp_path: Path
) -> None:
    for line in ('{"messages": 3}', "{", json.dumps({"messages": [*chat(1), {"role": "x"}]})):
        blob = write(tmp_path / "f", 5)
        with blob.open("a") as file:
            file.write("\n" + line)
        with pytest.raises(InvalidRequest, match="Line 7"):
            build_shards(blob, renderer, tmp_path / "s")
    with pytest.raises(InvalidRequest, match="37 tokens; 10 can be read"):
        build_shards(
            write(tmp_path / "g", 5), renderer, tmp_path / "s", ShardOptions(max_row_tokens=10)
        )


def test_a_damaged_shard_is_seen(renderer: Renderer, tmp_path: Path) -> None:
    spec = build_shards(write(tmp_path / "f", 5), renderer, tmp_path / "s")
    path = Path(spec.path) / "shard-00000.safetensors"
    whole = path.read_bytes()
    for content in (whole[:20], b"\xff" * 64, whole[: len(whole) // 2], b""):
        path.write_bytes(content)
        with pytest.raises(DataUnreadable):
            Shards.open(Path(spec.path))


def test_the_files_are_plain_safetensors(renderer: Renderer, tmp_path: Path) -> None:
    spec = build_shards(write(tmp_path / "f", 5), renderer, tmp_path / "s")
    tensors = load_file(Path(spec.path) / "shard-00000.safetensors")
    assert {name: str(t.dtype) for name, t in tensors.items()} == {
        "ids": "int32",
        "learned": "uint8",
        "offsets": "int64",
        "lines": "int64",
    }


def test_a_chat_of_two_rows_keeps_its_line(tmp_path: Path) -> None:
    renderer = Renderer.load(make_folder(tmp_path / "m", REASONING_FAMILY))
    answers = [{"role": "assistant", "content": f"<think>x</think>{n}"} for n in range(2)]
    user = {"role": "user", "content": "Hi"}
    blob = tmp_path / "f"
    blob.write_text(json.dumps({"messages": [user, answers[0], user, answers[1]]}))
    spec = build_shards(blob, renderer, tmp_path / "s")
    assert spec.rows == 2
    assert Shards.open(Path(spec.path)).lines.tolist() == [1, 1]
    assert check_file(blob, CheckLimits(), renderer).tokens == spec.tokens
