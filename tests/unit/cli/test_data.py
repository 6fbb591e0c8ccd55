"""`afina data`: what it prints, counts and returns; the bard's file is the example."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.tiny import write_tiny_tokenizer
from tests.unit.cli.conftest import ScriptedServer
from typer.testing import Result

from afina.data.moderation.categories import CATEGORIES
from afina.domain.codec import encode
from afina.domain.models import BaseModel

Afina = Callable[..., Result]
BARD = Path(__file__).parents[3] / "examples" / "bard"
CANARY = "swordfish"


@pytest.fixture
def chats(afina: Afina, tmp_path: Path) -> Path:
    """The bard's questions as chats, the bad row among them."""
    path = tmp_path / "bard.jsonl"
    columns = ("--user", "Question", "--assistant", "Answer")
    done = afina("data", "convert", str(BARD / "questions.csv"), *columns, "--to", str(path))
    assert done.exit_code == 0, done.output
    return path


@pytest.fixture
def base(tmp_path: Path) -> str:
    """A base model's folder without weights in the data directory of `afina`."""
    folder = tmp_path / "data" / "models" / "tiny"
    write_tiny_tokenizer(folder)
    record = BaseModel(
        "tiny",
        str(folder),
        "0" * 64,
        1,
        context_tokens=4096,
        capabilities={"train_tokens_per_s": 1000.0},
    )
    (folder / "afina.json").write_text(json.dumps(encode(record)))
    return "tiny"


@pytest.mark.parametrize(("name", "rows"), [("questions.csv", 51), ("held_out.csv", 10)])
def test_the_bards_files_are_as_excel_saves_them(name: str, rows: int) -> None:
    raw = (BARD / name).read_bytes()
    assert raw.count(b"\r\n") == raw.count(b"\n") == rows + 1
    with pytest.raises(UnicodeDecodeError):
        raw.decode("utf-8")
    text = raw.decode("cp1252")
    assert {"’", "“", "”"} <= set(text)
    with (BARD / name).open(encoding="cp1252", newline="") as file:
        assert len(list(csv.DictReader(file))) == rows


def test_a_conversion_says_what_it_read_and_how_many_rows(chats: Path, afina: Afina) -> None:
    first = json.loads(chats.read_text("utf-8").splitlines()[0])
    assert [message["role"] for message in first["messages"]] == ["user", "assistant"]
    again = afina(
        "data", "convert", str(BARD / "questions.csv"), "--user", "question",
        "--assistant", "answer", "--to", str(chats), "--json",
    )  # fmt: skip
    report = json.loads(again.stdout)
    assert report["encoding"] == "cp1252"
    assert report["rows_in"] == report["rows_out"] + sum(report["dropped"].values()) == 51


def test_a_column_that_is_not_there_is_named_with_those_that_are(
    afina: Afina, tmp_path: Path
) -> None:
    done = afina(
        "data", "convert", str(BARD / "questions.csv"), "--user", "Frage",
        "--assistant", "Answer", "--to", str(tmp_path / "x.jsonl"),
    )  # fmt: skip
    assert done.exit_code == 1
    assert "Frage" in done.stderr
    assert "Question" in done.stderr
    assert not (tmp_path / "x.jsonl").exists()


def test_the_bad_row_is_named_with_line_and_remedy_and_fails_the_check(
    chats: Path, afina: Afina
) -> None:
    done = afina("data", "check", str(chats))
    assert done.exit_code == 1
    assert "bard.jsonl:26 message 2 [empty-content]" in done.stdout
    assert "were not checked" in done.stderr


def test_cleaning_drops_and_counts_the_bad_row(chats: Path, afina: Afina, tmp_path: Path) -> None:
    clean = tmp_path / "clean.jsonl"
    done = afina("data", "check", str(chats), "--clean", str(clean), "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["clean"] == {"rows_in": 51, "rows_out": 50, "rows_dropped": 1}
    lines = chats.read_bytes().splitlines(keepends=True)
    assert clean.read_bytes() == b"".join(lines[:25] + lines[26:])
    assert afina("data", "check", str(clean)).exit_code == 0


def test_findings_never_hold_the_text_of_a_row(afina: Afina, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        f'{{"messages": [{{"role": "alien", "content": "{CANARY}"}}]}}\n{CANARY}\n' * 20
    )
    for form in ((), ("--all",), ("--json",)):
        done = afina("data", "check", str(path), *form)
        assert done.exit_code == 1
        assert CANARY not in done.output


def test_an_estimate_needs_a_base_and_then_counts_as_the_bill_does(
    chats: Path, afina: Afina, base: str
) -> None:
    done = afina("data", "estimate", str(chats), "--epochs", "2", "--batch-size", "1", "--json")
    found = json.loads(done.stdout)
    assert (found["model"], found["rows"], found["rows_dropped"]) == (base, 50, 1)
    assert found["trained_tokens"] == 2 * found["tokens_per_epoch"]
    assert found["steps"] == 100
    assert found["seconds"] > 0
    shown = afina("data", "estimate", str(chats), "--model", base).stdout
    assert "50, 1 not usable" in shown
    assert "$0.00" in shown


def test_an_estimate_takes_the_tuning_of_a_job_and_refuses_as_a_job_does(
    chats: Path, afina: Afina, base: str
) -> None:
    def seconds(*options: str) -> float:
        done = afina("data", "estimate", str(chats), "--json", *options)
        found = json.loads(done.stdout)
        assert found["method"] == "supervised"
        return float(found["seconds"])

    ways: tuple[list[str], ...] = ([], ["--dropout", "0.1"], ["--tuning", "full"])
    assert len({seconds(*way) for way in ways}) == len(ways)
    full = json.loads(afina("data", "estimate", str(chats), "--json", *ways[-1]).stdout)
    assert full["tuning"] == {"kind": "full"}
    shown = afina("data", "estimate", str(chats), "--target-modules", "v_proj,q_proj").stdout
    assert "q_proj, v_proj" in shown
    for options, said in (
        (["--tuning", "full", "--rank", "4"], "'full' has no such field"),
        (["--target-modules", "q_proj,nose"], "has no linear layers 'nose'"),
        (["--tuning", "last_layers", "--layers", "999"], "layers"),
        (["--rank", "0"], "expected a value >= 1"),
        (["--method", "dpo"], "which the method dpo does not train on"),
        (["--beta", "3"], "beta"),
    ):
        done = afina("data", "estimate", str(chats), *options)
        assert (done.exit_code, done.stdout) == (1, ""), options
        assert said in " ".join(done.stderr.split())


def test_preferences_are_estimated_by_pairs(afina: Afina, base: str, tmp_path: Path) -> None:
    pair = {
        "input": {"messages": [{"role": "user", "content": "Say it."}]},
        "preferred_output": [{"role": "assistant", "content": "Well said."}],
        "non_preferred_output": [{"role": "assistant", "content": "Said badly."}],
    }
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(json.dumps(pair) for _ in range(12)))
    refused = afina("data", "estimate", str(path))
    assert "Ask for the method dpo" in " ".join(refused.stderr.split())
    done = afina("data", "estimate", str(path), "--method", "dpo", "--batch-size", "4", "--json")
    found = json.loads(done.stdout)
    epochs = found["epochs"]
    assert (found["rows"], found["steps"], found["method"]) == (12, 3 * epochs, "dpo")


def test_an_estimate_without_a_model_here_says_how_to_get_one(chats: Path, afina: Afina) -> None:
    done = afina("data", "estimate", str(chats))
    assert (done.exit_code, "--model" in done.stderr) == (1, True)
    done = afina("data", "estimate", str(chats), "--model", "gone")
    assert (done.exit_code, "afina models pull" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("f.csv", "question,answer\nwhy,so\n", "afina data convert"),
        ("f.jsonl", '{"question": "why", "answer": "so"}', "afina data convert"),
        ("f.jsonl", '"why"\n', "afina data check"),
        ("f.jsonl", "", "is empty. Give a file with rows."),
    ],
)
def test_a_file_without_a_text_to_judge_is_refused_and_not_called_unflagged(
    name: str, content: str, said: str, afina: Afina, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    done = afina("data", "moderate", str(tmp_path / name))
    assert (done.exit_code, done.stdout) == (1, "")
    assert said in " ".join(done.stderr.split())


def test_rows_that_were_not_judged_are_told_and_end_with_1(
    server: ScriptedServer, afina: Afina, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = json.dumps({name: 0.9 if name == "hate" else 0.0 for name in CATEGORIES})
    server.say("POST /chat/completions", {"choices": [{"message": {"content": scores}}]})
    for key, value in (("BACKEND", "endpoint"), ("ENDPOINT_MODEL", "m")):
        monkeypatch.setenv(f"AFINA_MODERATION__{key}", value)
    monkeypatch.setenv("AFINA_MODERATION__ENDPOINT_URL", server.url)
    path = tmp_path / "f.jsonl"
    path.write_text(f'{{"prompt": "p", "completion": "{CANARY}"}}\n{{"id": 1}}\n')
    clean = ("--clean", str(tmp_path / "clean"))
    done = afina("data", "moderate", str(path), "--json", *clean)
    report = json.loads(done.stdout)
    assert (done.exit_code, report["rows"], report["unread_rows"], report["flagged_rows"]) == (
        *(1, 2, 1, 1),
    )
    told = " ".join(done.stderr.split())
    assert "1 of 2 rows hold no text that can be read, line 2 the first" in told
    assert (tmp_path / "clean").read_text() == '{"id": 1}\n'
    assert CANARY not in done.output
    assert "A job would train on 1 of the flagged rows." in told
    assert "clean holds the rows that are not flagged; policies and thresholds stand" in told
    monkeypatch.setenv("AFINA_MODERATION__POLICY", "block")
    monkeypatch.setenv("AFINA_MODERATION__MAX_FLAGGED_SHARE", "0.496")
    told = " ".join(afina("data", "moderate", str(path)).stderr.split())
    assert f"Drop or mend the flagged rows. `afina data moderate {path} --clean OUT`" in told
    assert (
        "refused: 1 of 2 rows are flagged under quarantine or block, more than the 49.60%" in told
    )
    done = afina("data", "moderate", str(path), "--clean", str(path))
    assert done.exit_code == 1
    assert "would overwrite the file that is read" in " ".join(done.stderr.split())


def test_a_split_without_a_row_leaves_both_files_as_they_were(afina: Afina, tmp_path: Path) -> None:
    path, kept = tmp_path / "f.csv", tmp_path / "t"
    path.write_text("question,answer\nwhy,so\n")
    kept.write_text("before")
    to = ("--training", str(kept), "--validation", str(tmp_path / "v"))
    done = afina("data", "split", str(path), *to)
    assert (done.exit_code, kept.read_text(), (tmp_path / "v").exists()) == (1, "before", False)
    assert "Nothing was written." in done.stderr


def test_a_share_that_is_far_from_what_was_asked_is_told_and_why(
    afina: Afina, tmp_path: Path
) -> None:
    path = tmp_path / "f.jsonl"
    rows = [{"prompt": f"p{n}", "completion": f"c{max(n, 1)}", "who": n // 15} for n in range(30)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    to = ("--training", str(tmp_path / "t"), "--validation", str(tmp_path / "v"))
    by_answer = " ".join(afina("data", "split", str(path), *to, "--by", "answer").stderr.split())
    assert "Validation has 3.3% of the rows, and 10.0% were asked for: an answer of" in by_answer
    of_two = ("--by", "group", "--group", "who", "--seed", "12", "--share", "0.1")
    by_group = " ".join(afina("data", "split", str(path), *to, *of_two).stderr.split())
    assert "Validation has 50.0% of the rows, and 10.0% were asked for: a group" in by_group
    assert not afina("data", "split", str(path), *to, "--share", "0.3").stderr


def test_a_side_that_got_no_row_is_told(afina: Afina, tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text('{"prompt": "p", "completion": "c"}\n')
    to = ("--training", str(tmp_path / "t"), "--validation", str(tmp_path / "v"))
    done = afina("data", "split", str(path), *to, "--share", "0.001")
    assert done.exit_code == 0
    assert "No row went to validation" in " ".join(done.stderr.split())


def test_a_redaction_says_what_its_file_is(afina: Afina, tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    path.write_text('[\n{"question": "ana@example.com", "answer": "so"}\n]\n')
    done = afina("data", "redact", str(path), "--to", str(tmp_path / "out"))
    told = " ".join(done.stderr.split())
    assert done.exit_code == 0
    assert "2 lines are no JSON and read as plain text." in told
    assert "looks like one JSON text. Make training rows of it" in told
    path.write_text("")
    done = afina("data", "redact", str(path), "--to", str(tmp_path / "out"))
    assert done.exit_code == 1
    assert "f.json holds no row." in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("convert", "F", "--to", "F"), "would overwrite the file that is read"),
        (("convert", "F", "--to", "D"), "is a folder. Name a file."),
        (("convert", "F", "--to", "D/none/x"), "There is no folder"),
        (("check", "F", "--report", "F"), "would overwrite"),
        (("check", "F", "--fix", "D/a", "--clean", "D/a"), "Two files would be written as"),
        (("split", "F", "--training", "D/a", "--validation", "D/a"), "Two files would be written"),
        (("split", "F", "--training", "D/a", "--validation", "F"), "would overwrite"),
        (("redact", "F", "--to", "D/a", "--audit", "F"), "would overwrite"),
        (("redact", "F", "--to", "D/a", "--audit", "D/a"), "Two files would be written"),
        (("redact", "F", "--to", "D/a", "--key", "D/a"), "Two files would be written"),
        (("restore", "F", "--to", "F", "--key", "F", "--vault", "F"), "would overwrite"),
        (("moderate", "F", "--clean", "F"), "would overwrite"),
    ],
)
def test_nothing_is_written_over_the_file_that_is_read_or_twice(
    words: tuple[str, ...], said: str, afina: Afina, tmp_path: Path
) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text('{"prompt": "p", "completion": "c"}\n')
    before = path.read_bytes()
    stand_for = {"F": str(path), "D": str(tmp_path)}
    names = [stand_for.get(word[0], word[0]) + word[1:] for word in words]
    done = afina("data", *names)
    assert done.exit_code == 1
    assert said in " ".join(done.stderr.split())
    assert path.read_bytes() == before
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("convert", "F", "--layout", "pair", "--to", "P"),
        ("check", "F", "--fix", "P"),
        ("check", "F", "--clean", "P"),
        ("split", "F", "--training", "P", "--validation", "D/a"),
        ("redact", "F", "--to", "P"),
    ],
)
def test_a_device_or_a_pipe_is_never_replaced_by_a_file(
    words: tuple[str, ...], afina: Afina, tmp_path: Path
) -> None:
    path, pipe = tmp_path / "f.jsonl", tmp_path / "pipe"
    path.write_text('{"prompt": "p", "completion": "c"}\n')
    os.mkfifo(pipe)
    stand_for = {"F": str(path), "P": str(pipe), "D": str(tmp_path)}
    names = [stand_for.get(word[0], word[0]) + word[1:] for word in words]
    done = afina("data", *names)
    assert done.exit_code == 1
    assert "pipe is a device or a pipe, and no file. Name a file." in " ".join(done.stderr.split())
    assert pipe.is_fifo()


def test_a_validation_file_without_a_row_is_not_compared_with_in_silence(
    chats: Path, afina: Afina, tmp_path: Path
) -> None:
    table = tmp_path / "valid.csv"
    table.write_text("question,answer\nwhy,so\n")
    done = afina("data", "check", str(chats), "--validation-file", str(table))
    assert (done.exit_code, done.stdout) == (1, "")
    told = " ".join(done.stderr.split())
    assert "valid.csv has no row to compare with." in told
    assert "afina data convert" in told
