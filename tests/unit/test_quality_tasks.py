"""The judges of `benchmarks/quality.py`: what they accept, and what they cannot be talked into."""

from __future__ import annotations

import pytest
from benchmarks.quality_forms import extraction, is_valid
from benchmarks.quality_sql import HELD_OUT, query_of, run_query, text_to_sql
from benchmarks.quality_task import Task
from benchmarks.quality_words import claims, loops, voice

TASKS = [extraction(), text_to_sql(), claims(), voice()]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_nothing_held_out_is_trained_and_every_build_is_the_same(task: Task) -> None:
    assert not {row.question for row in task.rows} & {row.question for row in task.held_out}
    builds = {"extraction": extraction, "sql": text_to_sql, "claims": claims, "voice": voice}
    assert builds[task.name]().sha256 == task.sha256
    assert len(task.examples(seed=1)) == task.shots


@pytest.mark.parametrize("task", TASKS[:3], ids=lambda task: task.name)
def test_the_references_are_right_and_silence_is_wrong(task: Task) -> None:
    wanted = [row.answer for row in task.held_out]
    assert set(task.judge(task.held_out, wanted).values()) == {1.0}
    assert set(task.judge(task.held_out, [""] * len(wanted)).values()) == {0.0}


@pytest.mark.parametrize(
    "query",
    [
        "DROP TABLE {t}",
        "INSERT INTO {t} SELECT * FROM {t}",
        "ATTACH DATABASE 'x' AS x",
        "PRAGMA table_info({t})",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n",
        "SELECT COUNT(*) FROM {t}; DELETE FROM {t}",
        "SELECT nothing FROM {t}",
        "\0",
    ],
)
def test_a_query_that_writes_fails_or_never_ends_gives_nothing(query: str) -> None:
    table = HELD_OUT[0]
    assert run_query(table, query.format(t=table.name), seed=0) is None


def test_a_query_may_stand_in_a_fence() -> None:
    assert query_of("Here it is:\n```sql\nSELECT 1\n```\nIt gives one.") == "SELECT 1"


def test_an_invoice_has_its_five_fields_and_no_others() -> None:
    right = {"vendor": "A", "number": "1", "date": "2026-01-31", "total": 2.5, "currency": "EUR"}
    assert is_valid(right)
    assert not is_valid(right | {"note": ""})
    assert not is_valid(right | {"total": True})
    assert not is_valid(right | {"date": "2026-02-31"})
    assert not is_valid(right | {"date": "20260131"})
    assert not is_valid([right])


def test_an_answer_that_runs_in_circles_is_a_loop() -> None:
    assert loops("O que é o que é o que é o que é isto")
    assert not loops("A lua brilha porque reflecte a luz do sol, e a luz do sol é branca.")
