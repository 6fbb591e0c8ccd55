"""Erasing one customer's rows takes what holds them and what was made of them, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.platforms import BASE, other_caller, publish, run_to_running, start_job, upload

from afina.domain.accounts import Caller
from afina.errors import InvalidRequest, NotFound
from afina.service.draft_files import Draft
from afina.service.draft_rows import edit_row
from afina.service.drafts import list_drafts, start_draft
from afina.service.erasing import erase, find_traces
from afina.service.files import get_file, open_file
from afina.service.jobs import get_job
from afina.service.models import get_model
from afina.service.platform import Platform
from afina.service.stored import get_completion, keep_completion

pytestmark = pytest.mark.long


def row(text: str, escaped: bool = False) -> bytes:
    messages = [{"role": "user", "content": text}, {"role": "assistant", "content": "Yes."}]
    return json.dumps({"messages": messages}, ensure_ascii=escaped).encode() + b"\n"


OTHERS = b"".join(row(f"question {n}") for n in range(11))


def test_a_customers_rows_go_with_their_jobs_and_models_and_the_other_rows_stay(
    platform: Platform, caller: Caller, tmp_path: Path
) -> None:
    first, last = row("I am ANA@Example.com"), row("of ana@example.com").replace(b"@", b"\\u0040")
    hers = first + OTHERS + last
    touched, untouched = upload(platform, caller, hers), upload(platform, caller, OTHERS)
    start_job(platform, caller, training_file=touched.id)
    job = publish(platform, run_to_running(platform), tmp_path / "a")
    start_job(platform, caller, training_file=untouched.id)
    other = publish(platform, run_to_running(platform), tmp_path / "b")
    request = {"messages": [{"role": "user", "content": "ana@example.com asks"}]}
    answer = {"id": "chatcmpl-1", "created": 1, "model": BASE, "choices": []}
    keep_completion(platform, caller, request, answer)
    traces = find_traces(platform, caller, ["ana@example.COM"])
    assert [(t.file.id, t.lines, t.rows) for t in traces.files] == [(touched.id, (1, 13), 13)]
    assert [found.id for found in traces.jobs] == [job.id]
    assert traces.completions == ("chatcmpl-1",)
    assert set(traces.models) >= {job.fine_tuned_model}
    done = erase(platform, caller, traces)
    assert (done.waiting, done.is_log_empty) == ((), True)
    for held in platform.settings.data.rglob("*"):
        assert not held.is_file() or b"ana@example.com" not in held.read_bytes().lower(), held
    [(old, new)] = done.written
    assert (old, new is not None) == (touched.id, True)
    _, handle = open_file(platform, caller, new or "")
    with handle:
        assert handle.read() == OTHERS
    for gone in (
        lambda: get_file(platform, caller, touched.id),
        lambda: get_job(platform, caller, job.id),
        lambda: get_model(platform, caller, job.fine_tuned_model or ""),
        lambda: get_completion(platform, caller, "chatcmpl-1"),
    ):
        with pytest.raises(NotFound):
            gone()
    assert get_model(platform, caller, other.fine_tuned_model or "")
    assert get_file(platform, caller, untouched.id)
    assert find_traces(platform, caller, ["ana@example.com"]).is_empty


def test_escaped_text_is_found_and_another_project_is_not_looked_at(
    platform: Platform, caller: Caller
) -> None:
    upload(platform, caller, row("José Núñez", escaped=True) + OTHERS)
    assert find_traces(platform, caller, ["josé NÚÑEZ"]).files
    assert find_traces(platform, other_caller(platform), ["josé núñez"]).is_empty


@pytest.mark.parametrize("place", ["column", "edit"])
def test_a_draft_that_holds_the_text_anywhere_goes_and_others_stay(
    platform: Platform, caller: Caller, place: str
) -> None:
    def bring(rows: str) -> Draft:
        return start_draft(platform, caller, [rows.encode()], "table.csv", None)

    head = "question;answer;from\nHi;Yes;"
    hers = bring(head + ("Ana@example.com" if place == "column" else "nobody"))
    other = bring(head + "nobody")
    if place == "edit":
        edit_row(platform, caller, hers.id, 1, row("of ana@example.com").decode().strip())
    traces = find_traces(platform, caller, ["ana@example.com"])
    assert [draft.id for draft in traces.drafts] == [hers.id]
    erase(platform, caller, traces)
    assert [draft.id for draft in list_drafts(platform, caller)] == [other.id]
    assert find_traces(platform, caller, ["ana@example.com"]).is_empty


def test_a_job_that_a_worker_holds_is_waited_for(platform: Platform, caller: Caller) -> None:
    file = upload(platform, caller, row("customer 4711") + OTHERS)
    start_job(platform, caller, training_file=file.id)
    job = run_to_running(platform)
    done = erase(platform, caller, find_traces(platform, caller, ["customer 4711"]))
    assert (done.waiting, done.written) == ((job.id,), ())
    assert get_file(platform, caller, file.id)


@pytest.mark.parametrize("words", [[], [""], ["  "], ["a"], ["ok ", "long enough"][:1]])
def test_what_is_too_short_to_mean_somebody_is_refused(
    platform: Platform, caller: Caller, words: list[str]
) -> None:
    with pytest.raises(InvalidRequest, match="at least 3 characters"):
        find_traces(platform, caller, words)
