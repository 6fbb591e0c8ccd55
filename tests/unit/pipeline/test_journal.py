"""Each usage record reaches the ledger once, whatever dies and however the journal is turned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from afina.pipeline import journal
from afina.pipeline.journal import JournalDrain
from afina.serving.journal import Journal
from afina.serving.protocol import UsageRecord


def record(number: int) -> UsageRecord:
    return UsageRecord(f"req_{number}", 1.0, "base", None, 3, 0, 2, "finished", {"project": "p"})


class Ledger:
    """As the store does it: a request id counts once."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.fail_next = False

    def __call__(self, records: Sequence[UsageRecord]) -> int:
        if self.fail_next:
            self.fail_next = False
            raise RuntimeError("killed")
        new = [r.request_id for r in records if r.request_id not in self.ids]
        self.ids += new
        return len(new)


def test_what_was_drained_is_not_read_again(tmp_path: Path) -> None:
    path, ledger = tmp_path / "usage.jsonl", Ledger()
    engine = Journal(path)
    engine.append(record(1))
    assert JournalDrain(path, ledger).drain() == 1
    engine.append(record(2))
    assert JournalDrain(path, ledger).drain() == 1
    assert JournalDrain(path, ledger).drain() == 0
    assert ledger.ids == ["req_1", "req_2"]
    engine.close()


def test_a_death_before_or_after_the_store_has_them_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, ledger = tmp_path / "usage.jsonl", Ledger()
    engine = Journal(path)
    engine.append(record(1))
    ledger.fail_next = True
    with pytest.raises(RuntimeError):
        JournalDrain(path, ledger).drain()

    def killed(*_: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(journal, "write_json", killed)
        with pytest.raises(RuntimeError):
            JournalDrain(path, ledger).drain()
    assert JournalDrain(path, ledger).drain() == 0
    assert ledger.ids == ["req_1"]
    engine.close()


def test_a_torn_line_waits_and_a_foreign_one_is_passed_over(tmp_path: Path) -> None:
    path, ledger = tmp_path / "usage.jsonl", Ledger()
    engine = Journal(path)
    engine.append(record(1))
    whole = path.read_bytes()
    path.write_bytes(whole + b"{}\n" + whole[:-4].replace(b"req_1", b"req_2"))
    drain = JournalDrain(path, ledger)
    assert drain.drain() == 1
    with path.open("ab") as file:
        file.write(whole[-4:])
    assert drain.drain() == 1
    assert ledger.ids == ["req_1", "req_2"]
    engine.close()


def test_a_long_journal_is_turned_over_while_the_engine_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "ROTATE_BYTES", 300)
    path, ledger = tmp_path / "usage.jsonl", Ledger()
    engine = Journal(path)
    drain = JournalDrain(path, ledger)
    for number in range(60):
        engine.append(record(number))
        if number % 3 == 0:
            drain.drain()
    drain.drain()
    assert ledger.ids == [f"req_{n}" for n in range(60)]
    assert sum(file.stat().st_size for file in tmp_path.glob("usage*.jsonl")) < 60 * 150
    engine.close()


def test_a_straggler_in_the_old_journal_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "ROTATE_BYTES", 1)
    path, ledger = tmp_path / "usage.jsonl", Ledger()
    engine = Journal(path)
    drain = JournalDrain(path, ledger)
    engine.append(record(1))
    line = path.read_bytes()
    drain.drain()
    old = path.with_suffix(".old.jsonl")
    with old.open("ab") as file:  # the engine had looked at the path just before the renaming
        file.write(line.replace(b"req_1", b"req_2"))
    engine.append(record(3))
    drain.drain()
    assert ledger.ids == ["req_1", "req_2", "req_3"]
    engine.close()
