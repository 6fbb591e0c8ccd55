"""The check over whole files: counts, order, memory, cleaning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.tiny_chat import FAMILIES, make_folder

from afina.data.check import CheckLimits, CheckReport, check_file, write_clean
from afina.data.job_errors import job_error
from afina.data.uploads import upload_error
from afina.errors import DataUnreadable, InvalidRequest
from afina.text.renderer import Renderer


def chat(question: str = "Hi", answer: str = "Yes", **more: Any) -> str:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": messages, **more})


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def check(path: Path, **limits: Any) -> CheckReport:
    return check_file(path, CheckLimits(**limits), None)


def test_rows_in_are_rows_usable_and_bad_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "f", chat("a"), "", "{", chat("b"), " ", chat(""), chat("c"))
    report = check(path, min_rows=3)
    assert report.rows_total == report.rows_usable + len(report.bad_lines) == 5
    assert list(report.bad_lines) == [3, 6]
    assert report.blank_lines == 2
    assert report.first_bad_example == 2
    assert dict(report.counts) == {"not-json": 1, "empty-content": 1, "blank-lines": 1}
    assert (report.errors, report.warnings) == (2, 1)


def test_fewer_than_ten_rows_are_an_error_of_the_file(tmp_path: Path) -> None:
    report = check(write(tmp_path / "f", *(chat(str(n)) for n in range(9))))
    assert [f.rule for f in report.findings] == ["too-few-rows"]
    assert report.findings[0].line is None
    assert not check(write(tmp_path / "g", *(chat(str(n)) for n in range(10)))).has_errors
    assert not check(write(tmp_path / "h", chat()), min_rows=1).has_errors


@pytest.mark.parametrize("content", ["", "\n\n \n"])
def test_an_empty_file_is_an_error(content: str, tmp_path: Path) -> None:
    report = check(write(tmp_path / "f", content))
    assert [f.rule for f in report.findings] == ["empty-file"]


def test_the_same_row_again_is_a_warning_that_names_the_first(tmp_path: Path) -> None:
    path = write(tmp_path / "f", chat("a"), chat("b"), chat("a"), "", chat("a"), chat("b"))
    report = check(path, min_rows=1)
    found = [(f.line, f.message) for f in report.findings if f.rule == "duplicate-row"]
    assert found == [
        (3, "The row is the same as in line 1."),
        (5, "The row is the same as in line 1."),
        (6, "The row is the same as in line 2."),
    ]
    assert not report.has_errors


def test_errors_are_kept_before_warnings_and_all_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "f", *[chat()] * 50, "{", "{", "{")
    report = check(path, max_findings=4, min_rows=1)
    assert [f.rule for f in report.findings] == [
        "duplicate-row",
        "not-json",
        "not-json",
        "not-json",
    ]
    assert dict(report.counts) == {"not-json": 3, "duplicate-row": 49}
    assert report.findings_left_out == 48


def test_the_first_place_of_each_rule_is_listed_however_many_another_has(tmp_path: Path) -> None:
    path = write(tmp_path / "f", *["{"] * 30, chat(), chat(), "[]", *["{"] * 30)
    report = check(path, max_findings=5, min_rows=1)
    listed = [(f.rule, f.line) for f in report.findings]
    assert ("not-an-object", 33) in listed
    assert ("duplicate-row", 32) in listed
    assert [rule for rule, _ in listed].count("not-json") == 3


def test_a_hopeless_file_is_given_up_and_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "f", *["{"] * 50, chat())
    report = check(path, max_bad_rows=10)
    assert not report.complete
    assert report.rows_total == 10
    assert report.counts["too-many-errors"] == 1
    assert "line 10" in report.findings[-2].message + report.findings[-1].message
    with pytest.raises(DataUnreadable, match="too many rows"):
        write_clean(path, report, tmp_path / "clean")


def test_a_renderer_gives_tokens_and_lengths(tmp_path: Path) -> None:
    renderer = Renderer.load(make_folder(tmp_path / "m", FAMILIES["chatml"], context_tokens=60))
    rows = [chat("a"), chat("b", "word " * 200), chat("c", "Yes no.")]
    path = write(tmp_path / "f", *rows)
    report = check_file(path, CheckLimits(min_rows=1), renderer)
    assert [(f.rule, f.line) for f in report.findings] == [("too-long", 2)]
    assert "60 is the limit" in report.findings[0].message
    lengths = [len(renderer.training_row(json.loads(rows[n])["messages"]).ids) for n in (0, 2)]
    assert (report.tokens, report.longest_row) == (sum(lengths), max(lengths))
    assert report.training_rows == report.rows_usable == 2
    shorter = check_file(path, CheckLimits(min_rows=1, max_row_tokens=5), renderer)
    assert shorter.counts["too-long"] == 3


def test_progress_ends_at_the_end(tmp_path: Path) -> None:
    path = write(tmp_path / "f", *(chat(str(n)) for n in range(1000)))
    seen: list[tuple[int, int]] = []
    check_file(path, CheckLimits(), None, lambda done, total: seen.append((done, total)))
    size = path.stat().st_size
    assert seen[-1] == (size, size)
    assert seen == sorted(seen)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataUnreadable, match="nothing"):
        check(tmp_path / "nothing")
    with pytest.raises(DataUnreadable):
        check(tmp_path)


def test_the_cleaned_file_holds_the_usable_rows_as_they_were(tmp_path: Path) -> None:
    kept = [chat("a é"), chat("b"), chat("c").replace(" ", "  ")]
    path = tmp_path / "f"
    path.write_bytes("\ufeff{}\r\n".encode() + "\r\n\r\n".join([*kept, "{"]).encode())
    report = check(path, min_rows=1)
    cleaned = write_clean(path, report, tmp_path / "clean")
    assert (tmp_path / "clean").read_text() == "\n".join(kept) + "\n"
    assert (cleaned.rows_in, cleaned.rows_out, cleaned.rows_dropped) == (5, 3, 2)
    assert not check(tmp_path / "clean", min_rows=1).counts
    with pytest.raises(InvalidRequest, match="overwrite"):
        write_clean(path, report, path)


def test_a_file_that_changed_is_not_cleaned(tmp_path: Path) -> None:
    path = write(tmp_path / "f", chat("a"), "{")
    report = check(path)
    write(path, chat("a"), chat("b"), chat("c"))
    with pytest.raises(DataUnreadable, match="changed"):
        write_clean(path, report, tmp_path / "clean")
    assert not (tmp_path / "clean").exists()


@pytest.mark.parametrize(
    ("lines", "code", "text"),
    [
        ([chat(weight=1)], "invalid_file_format", 'Example 1 contains an extra "weight".'),
        (["{}"], "invalid_file_format", "Example 1 is missing key 'messages'."),
        (
            ["", chat(), '{"messages": [{"content": "x"}, {"role": "assistant", "content": "x"}]}'],
            "invalid_file_format",
            "Example 2, message 1 Discriminator 'role' is missing in value.",
        ),
        ([chat()] * 3, "invalid_n_examples", "3 example(s), but must have at least 10 examples"),
        ([], "invalid_n_examples", "0 example(s), but must have at least 10 examples"),
    ],
)
def test_a_job_fails_in_the_words_that_clients_know(
    lines: list[str], code: str, text: str, tmp_path: Path
) -> None:
    error = job_error(check(write(tmp_path / "f", *lines)), "training_file")
    assert error is not None
    assert (error.code, error.param) == (code, "training_file")
    assert text in error.message


def test_a_jobs_error_lists_the_lines(tmp_path: Path) -> None:
    lines = ["{" if n % 2 else chat(str(n)) for n in range(60)]
    error = job_error(check(write(tmp_path / "f", *lines)), "validation_file")
    assert error is not None
    assert "in the validation file" in error.message
    assert "30 rows of 60 have errors: lines 2, 4, 6," in error.message
    assert error.message.endswith("38, 40 and 10 more.")


def test_a_good_file_is_no_error_of_a_job(tmp_path: Path) -> None:
    assert job_error(check(write(tmp_path / "f", *[chat()] * 10)), "training_file") is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (chat(), None),
        ("{}", None),
        (chat() + "\n\n[1]", "Line 3: it is JSON, but not an object"),
        (chat() + "\n{", "Line 2: The line is not JSON"),
        ("a,b\n1,2", "Line 1"),
        (chat() + "\n{}{}\n\n{}", "Line 2: The line is not JSON"),
        ('{"a":\n{"b": 1}}{"c": 2}', "Line 1: The line is not JSON"),
        ('{"a": 1E999}', "Line 1"),
        ('{"a": NaN}', "Line 1: The line holds NaN"),
    ],
)
def test_an_upload_is_refused_for_lines_that_are_no_objects(
    content: str, words: str | None, tmp_path: Path
) -> None:
    error = upload_error(write(tmp_path / "f", content))
    if words is None:
        assert error is None
    else:
        assert error is not None
        assert error.message.startswith("Expected file to have JSONL format")
        assert words in error.message
