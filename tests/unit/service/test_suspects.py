"""The rows that a job could hardly learn: the worst first, with what they ask and answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.platforms import publish, run_to_running, start_job, upload

from afina.domain.accounts import Caller
from afina.service.files import delete_file
from afina.service.platform import Platform
from afina.service.suspects import SuspectRow, beginnings, suspect_rows

CHAT = [{"role": "system", "content": "s"}, {"role": "user", "content": "why?"}]


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({"messages": [*CHAT, {"role": "assistant", "content": "so"}]}, ("why?", "so")),
        ({"prompt": "2 +", "completion": " 2"}, ("2 +", " 2")),
        (
            {
                "input": {"messages": CHAT},
                "preferred_output": [{"role": "assistant", "content": "good"}],
                "non_preferred_output": [{"role": "assistant", "content": "bad"}],
            },
            ("why?", "good"),
        ),
        ([], ("", "")),
        ({"messages": "x"}, ("", "")),
    ],
)
def test_rows_of_every_kind_say_what_they_ask_and_answer(row: Any, found: tuple[str, str]) -> None:
    assert beginnings(json.dumps(row).encode()) == found


TABLE = b"""line,tokens,first_epoch_loss,last_epoch_loss,suspect,score
1,9,2.0,3.1,1,4.00
2,9,2.0,0.1,0,0.10
3,9,4.0,2.5,1,17.50
"""


def test_a_jobs_suspects_are_the_rows_furthest_above_rows_like_them(
    platform: Platform, caller: Caller, tmp_path: Path
) -> None:
    rows = [[{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}"}]
            for n in range(1, 12)]  # fmt: skip
    lines = "".join(json.dumps({"messages": row}) + "\n" for row in rows)
    file = upload(platform, caller, lines.encode())
    job = start_job(platform, caller, training_file=file.id)
    assert suspect_rows(platform, caller, job) == []
    job = publish(platform, run_to_running(platform), tmp_path, row_losses=TABLE)
    assert suspect_rows(platform, caller, job) == [
        SuspectRow(3, 4.0, 2.5, 17.5, "q3", "a3"),
        SuspectRow(1, 2.0, 3.1, 4.0, "q1", "a1"),
    ]
    delete_file(platform, caller, file.id)
    kept = suspect_rows(platform, caller, job)
    assert [(row.line, row.score, row.asked, row.answered) for row in kept] == [
        (3, 17.5, "", ""),
        (1, 4.0, "", ""),
    ]


def test_a_line_that_is_no_json_says_nothing() -> None:
    assert beginnings(b"{") == ("", "")
