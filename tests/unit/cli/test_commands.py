"""Commands that speak to a server: what they send, what they print, and `--json` everywhere."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main
from tests.tiny import write_tiny_tokenizer
from tests.unit.cli.conftest import ScriptedServer
from typer.testing import Result

from afina.cli.main import app
from afina.domain.models import BaseModel
from afina.model.folder import write_record

Afina = Callable[..., Result]
JOB: dict[str, Any] = {
    "id": "ftjob-1",
    "status": "queued",
    "model": "base",
    "fine_tuned_model": None,
    "training_file": "file-1",
    "validation_file": None,
    "created_at": 1_700_000_000,
    "finished_at": None,
    "trained_tokens": None,
    "result_files": [],
    "seed": 7,
    "hyperparameters": {"n_epochs": "auto"},
    "metadata": {"team": "stage"},
    "error": None,
}
WITHOUT_JSON = {"up", "api", "worker", "engine"}


def leaves(command: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        return [(path, command)]
    return [leaf for name, child in children.items() for leaf in leaves(child, (*path, name))]


def test_every_command_that_answers_takes_json_and_every_option_has_help() -> None:
    for path, command in leaves(typer.main.get_command(app)):
        names = {option for param in command.params for option in getattr(param, "opts", [])}
        if path[-1] not in WITHOUT_JSON:
            assert "--json" in names, path
        for param in command.params:
            assert param.help, (path, param.name)


def test_a_job_is_created_from_a_file_on_disk_with_what_was_given_and_no_more(
    server: ScriptedServer, afina: Afina, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("{}\n")
    server.say("POST /v1/files", {"id": "file-9"})
    server.say("POST /v1/fine_tuning/jobs", JOB)
    done = afina(
        "jobs", "create", "--model", "base", "--file", str(path), "--epochs", "2",
        "--metadata", "team=stage", "--metadata", "run=a=b", "--idempotency-key", "once",
    )  # fmt: skip
    assert (done.exit_code, done.stdout) == (0, "ftjob-1\n")
    asked = server.asked[1]
    assert asked.headers["idempotency-key"] == "once"
    assert asked.json == {
        "model": "base",
        "training_file": "file-9",
        "metadata": {"team": "stage", "run": "a=b"},
        "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}},
    }


def test_a_file_that_is_neither_here_nor_an_id_is_a_wrong_command_line(
    server: ScriptedServer, afina: Afina
) -> None:
    done = afina("jobs", "create", "--model", "base", "--file", "rowz.jsonl")
    assert done.exit_code == 2
    assert "rowz.jsonl" in done.stderr
    assert server.asked == []


def test_a_job_is_shown_with_its_error(server: ScriptedServer, afina: Afina) -> None:
    fault = {"code": "invalid_training_file", "message": "Line 3 is not JSON."}
    server.say("GET /v1/fine_tuning/jobs/ftjob-1", JOB | {"status": "failed", "error": fault})
    done = afina("jobs", "get", "ftjob-1")
    assert "Line 3 is not JSON. [invalid_training_file]" in done.stdout
    assert "metadata team" in done.stdout


def test_events_are_printed_oldest_first(server: ScriptedServer, afina: Afina) -> None:
    rows = [
        {"id": f"e{n}", "created_at": 1, "level": "info", "message": f"number {n}"} for n in (2, 1)
    ]
    server.say("GET /v1/fine_tuning/jobs/ftjob-1/events", {"data": rows, "has_more": False})
    done = afina("jobs", "events", "ftjob-1")
    assert [line[-8:] for line in done.stdout.splitlines()] == ["number 1", "number 2"]


def test_lists_are_whole_where_nobody_looks_at_a_terminal(
    server: ScriptedServer, afina: Afina
) -> None:
    name = f"{'n' * 200}.jsonl"
    row = {"id": "file-1", "filename": name, "purpose": "fine-tune", "bytes": 12_345}
    row |= {"status": "processed", "created_at": 1_700_000_000}
    server.say("GET /v1/files", {"data": [row], "has_more": False})
    done = afina("files", "list")
    assert name in done.stdout
    assert "12 kB" in done.stdout


def test_what_was_uploaded_for_a_job_that_is_refused_is_deleted_again(
    server: ScriptedServer, afina: Afina, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("{}\n")
    server.say("POST /v1/files", {"id": "file-9"})
    server.refuse("POST /v1/fine_tuning/jobs", 400, "No such thing.")
    server.say("DELETE /v1/files/file-9", {"id": "file-9", "deleted": True})
    done = afina("jobs", "create", "--model", "base", "--file", str(path), "--rank", "0")
    assert done.exit_code == 1
    assert "rows.jsonl is deleted from the server again" in done.stderr
    assert done.stderr.rstrip().endswith("No such thing.")
    assert server.asked[-1].method == "DELETE"


def test_what_was_uploaded_stays_where_nobody_knows_whether_the_job_was_created(
    server: ScriptedServer, afina: Afina, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("{}\n")
    server.say("POST /v1/files", {"id": "file-9"})
    server.refuse("POST /v1/fine_tuning/jobs", 503, "Not now.")
    assert afina("jobs", "create", "--model", "base", "--file", str(path)).exit_code == 1
    assert "DELETE" not in {one.method for one in server.asked}


def test_how_much_the_loss_must_fall_goes_with_early_stopping(
    server: ScriptedServer, afina: Afina
) -> None:
    server.say("POST /v1/fine_tuning/jobs", JOB)
    asked = ("jobs", "create", "--model", "base", "--file", "file-1", "--min-delta", "0.05")
    assert afina(*asked).exit_code == 2
    assert not server.asked
    assert afina(*asked, "--early-stopping", "2").exit_code == 0
    stopping = server.asked[-1].json["afina"]["early_stopping"]
    assert stopping == {"patience": 2, "min_delta": 0.05}


def test_a_job_shows_what_was_asked_of_it(server: ScriptedServer, afina: Afina) -> None:
    extension = {
        "early_stopping": {"patience": 2, "min_delta": 0.05},
        "best_checkpoint": True,
        "gate": {"policy": "hold", "suite": "default"},
    }
    job = JOB | {"method": {"type": "dpo"}, "user_provided_suffix": "bard", "afina": extension}
    server.say("GET /v1/fine_tuning/jobs/ftjob-1", job)
    shown = afina("jobs", "get", "ftjob-1").stdout
    facts = dict(line.split(maxsplit=1) for line in shown.replace("y st", "y-st").splitlines())
    assert (facts["method"], facts["suffix"]) == ("dpo", "bard")
    assert facts["early-stopping"].strip() == "2 epochs without a fall by more than 0.05"
    assert facts["gate"] == "hold, suite default"


def test_a_jobs_results_come_out_as_csv(
    server: ScriptedServer, afina: Afina, tmp_path: Path
) -> None:
    server.say("GET /v1/files/file-1", {"id": "file-1", "purpose": "fine-tune-results"})
    server.say_bytes("GET /v1/files/file-1/content", base64.b64encode(b"step,train_loss\n"))
    done = afina("files", "download", "file-1")
    assert done.stdout == "step,train_loss\n"
    afina("files", "download", "file-1", "--to", str(tmp_path / "r.csv"))
    assert (tmp_path / "r.csv").read_bytes() == b"step,train_loss\n"


def test_suspect_rows_come_first_with_what_they_say_and_as_numbers(
    server: ScriptedServer, afina: Afina
) -> None:
    table = (
        "line,tokens,first_epoch_loss,last_epoch_loss,suspect,score\n"
        "1,60,2.40000,3.10000,0,0.10\n2,61,4.00000,2.00000,1,17.50\n3,59,,,0,\n"
    )
    rows = [[{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}"}]
            for n in range(1, 4)]  # fmt: skip
    file = {"purpose": "fine-tune-results", "filename": "row_losses.csv"}
    lines = "".join(json.dumps({"messages": row}) + "\n" for row in rows)
    for _ in range(2):
        server.say("GET /v1/fine_tuning/jobs/ftjob-1", JOB | {"result_files": ["file-2"]})
        server.say("GET /v1/files/file-2", {"id": "file-2", **file})
        server.say_bytes("GET /v1/files/file-2/content", base64.b64encode(table.encode()))
        server.say_bytes("GET /v1/files/file-1/content", lines.encode())
    shown = afina("jobs", "suspects", "ftjob-1", "--limit", "2").stdout.splitlines()
    assert [line.split() for line in shown[-2:]] == [
        ["2", "*", "17.50", "4.00000", "2.00000", "q2", "a2"],
        ["1", "0.10", "2.40000", "3.10000", "q1", "a1"],
    ]
    found = json.loads(afina("jobs", "suspects", "ftjob-1", "--json").stdout)
    assert [(row["line"], row["suspect"], row["score"]) for row in found] == [
        (2, True, 17.5),
        (1, False, 0.1),
        (3, False, None),
    ]


def test_a_new_keys_secret_alone_is_on_standard_output(
    server: ScriptedServer, afina: Afina
) -> None:
    server.say("POST /v1/afina/keys", {"id": "key_1", "secret": "sk-afina-x"})
    done = afina("keys", "create", "ci", "--days", "2")
    assert done.stdout == "sk-afina-x\n"
    assert server.asked[0].json == {"name": "ci", "expires_after_s": 172_800}


def test_usage_is_grouped_and_summed_exactly(server: ScriptedServer, afina: Afina) -> None:
    def row(model: str, cost: str) -> dict[str, Any]:
        tokens = {"trained_tokens": 1000, "prompt_tokens": 2, "cached_tokens": 1}
        more = {"completion_tokens": 3, "entries": 1, "cost": cost}
        return {"group": {"model": model}, **tokens, **more}

    server.say("GET /v1/afina/usage", {"data": [row("a", "0.1"), row("b", "0.2")]})
    done = afina("usage", "--by", "model", "--since", "2026-01-01")
    assert server.asked[0].query == "group_by=model&start_time=1767225600"
    total = done.stdout.splitlines()[-1].split()
    assert total == ["in", "all", "2", "2,000", "4", "2", "6", "$0.30"]


def test_a_tuned_model_is_shown_with_its_proof_in_a_sentence(
    server: ScriptedServer, afina: Afina
) -> None:
    parity = {"passed": True, "mean_kl": 0.00042, "agreement": 0.9727, "positions": 256}
    limits = {"mean_kl_limit": 0.005, "engine_precision": "bf16", "reasons": []}
    shown = {"id": "ft:x", "kind": "tuned", "base_id": "b", "created_at": 1_700_000_000}
    shown |= {"state": "released", "job_id": "ftjob-1", "step": None, "template_sha256": "abc"}
    shown |= {"parity": parity | limits, "files": {"adapter_model.safetensors": "0" * 64}}
    server.say("GET /v1/afina/models/ft:x", shown | {"lineage": {"parent": "ft:w"}})
    lines = afina("models", "show", "ft:x").stdout.splitlines()
    assert [line.split()[0] for line in lines] == (
        ["id", "base", "made", "state", "parity", "files", "template", "lineage"]
    )
    proof = next(line for line in lines if line.startswith("parity"))
    assert "holds: over 256 positions in bf16" in proof
    assert "0.00042 nats (limit 0.005) and picks the same token 97.3% of the time" in proof


def test_a_model_whose_proof_failed_says_why(server: ScriptedServer, afina: Afina) -> None:
    parity = {"passed": False, "mean_kl": 0.1, "agreement": 0.5, "positions": 2}
    shown = {
        "id": "ft:x",
        "kind": "tuned",
        "created_at": 1,
        "parity": parity | {"reasons": ["far"]},
    }
    server.say("GET /v1/afina/models/ft:x", shown)
    assert "FAILED: over 2 positions" in (said := afina("models", "show", "ft:x").stdout)
    assert "; far" in said


TUNED = {"kind": "tuned", "base_id": "base"}
CARD = {
    "model": "ft:x",
    "state": "released",
    "created_at": 1,
    "written_at": 2,
    "written_by": "afina",
    "history": [],
    "base": {"id": "base", "here": False},
    "data": [],
    "method": {"kind": "lora", "method": None, "job": None, "afina": None, "settings": {}}
    | dict.fromkeys(("manifest", "data_sha256", "template_sha256", "trained_tokens")),
    "curves": [],
    "gate": None,
    "parity": None,
}


def test_an_adapter_is_exported_and_checked_by_hash(
    server: ScriptedServer, afina: Afina, tmp_path: Path
) -> None:
    weights = b"weights"
    files = {"adapter_model.safetensors": hashlib.sha256(weights).hexdigest()}
    server.say("GET /v1/afina/models/ft:x", TUNED | {"files": files})
    server.say_bytes("GET /v1/afina/files-of/ft:x", weights)
    server.say("GET /v1/afina/models/ft:x/card", CARD)
    done = afina("models", "export", "ft:x", "--to", str(tmp_path / "out"), "--json")
    assert json.loads(done.stdout)["files"] == [
        "README.md",
        "adapter_model.safetensors",
        "card.html",
        "card.json",
    ]
    assert json.loads((tmp_path / "out" / "card.json").read_text()) == CARD
    assert (tmp_path / "out" / "README.md").read_text().startswith("---\n")
    assert (tmp_path / "out" / "adapter_model.safetensors").read_bytes() == weights


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"adapter_model.safetensors": "0" * 64}, "damaged on its way"),
        ({"../outside": "0" * 64}, "no plain name"),
    ],
)
def test_a_damaged_or_straying_file_is_not_kept(
    server: ScriptedServer, afina: Afina, tmp_path: Path, files: dict[str, str], words: str
) -> None:
    server.say("GET /v1/afina/models/ft:x", TUNED | {"files": files})
    server.say_bytes("GET /v1/afina/files-of/ft:x", b"weights")
    done = afina("models", "export", "ft:x", "--to", str(tmp_path / "out"))
    assert done.exit_code == 1
    assert words in done.stderr
    assert list((tmp_path / "out").iterdir()) == []
    assert not (tmp_path / "outside").exists()


def test_an_export_never_mixes_with_what_is_there(
    server: ScriptedServer, afina: Afina, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    server.say("GET /v1/afina/models/ft:x", TUNED | {"files": {}})
    for arguments in (("models", "export", "ft:x"), ("export",)):
        done = afina(*arguments, "--to", str(tmp_path))
        assert done.exit_code == 1
        assert "is not empty" in done.stderr


def test_an_adapter_for_llama_cpp_is_made_by_the_server(
    server: ScriptedServer, afina: Afina, tmp_path: Path
) -> None:
    server.say("GET /v1/afina/models/ft:x", TUNED | {"files": {}})
    server.say_bytes("GET /v1/afina/files-of/ft:x", b"GGUF")
    server.say("GET /v1/afina/models/ft:x/card", CARD)
    to = tmp_path / "out"
    done = afina("models", "export", "ft:x", "--to", str(to), "--format", "gguf-lora", "--json")
    assert json.loads(done.stdout)["files"] == [
        "README.md",
        "card.html",
        "card.json",
        "ft-x-lora.gguf",
    ]
    assert (to / "ft-x-lora.gguf").read_bytes() == b"GGUF"


def test_an_export_says_that_a_tune_with_weights_of_its_own_has_no_adapter(
    server: ScriptedServer, afina: Afina, tmp_path: Path
) -> None:
    weights = b"weights"
    files = {"weights.safetensors": hashlib.sha256(weights).hexdigest()}
    server.say("GET /v1/afina/models/ft:x", TUNED | {"files": files})
    server.say_bytes("GET /v1/afina/files-of/ft:x", weights)
    server.say("GET /v1/afina/models/ft:x/card", CARD)
    done = afina("models", "export", "ft:x", "--to", str(tmp_path / "out"))
    assert done.exit_code == 0
    assert "which PEFT does not read" in done.stderr
    assert "--format merged" in done.stderr


def test_a_tune_that_llama_cpp_has_no_place_for_is_refused_before_it_is_fetched_or_merged(
    server: ScriptedServer, afina: Afina, tmp_path: Path
) -> None:
    folder = tmp_path / "data" / "models" / "tiny"
    write_tiny_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps({"architectures": ["MixtralForCausalLM"]}))
    write_record(folder, BaseModel("tiny", str(folder), "0" * 64, 0, context_tokens=512))
    server.say("GET /v1/afina/models/ft:x", TUNED | {"base_id": "tiny", "files": {}})
    to = tmp_path / "out"
    done = afina("models", "export", "ft:x", "--to", str(to), "--format", "gguf")
    assert done.exit_code == 1
    assert "MixtralForCausalLM cannot be written as GGUF" in done.stderr
    assert not to.exists()
    assert [asked.path for asked in server.asked] == ["/v1/afina/models/ft:x"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--format", "gguf", "--weights", "q9"), "no type of weights 'q9'"),
        (("--weights", "q8_0"), "--weights goes with --format gguf alone"),
        (("--format", "gguf-lora", "--weights", "f16"), "--weights goes with --format gguf alone"),
    ],
)
def test_a_type_of_weights_is_known_and_of_use(
    server: ScriptedServer, afina: Afina, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    done = afina("models", "export", "ft:x", "--to", str(tmp_path / "out"), *options)
    assert done.exit_code == 1
    assert words in done.stderr
    assert not (tmp_path / "out").exists()


def tar_of(*names: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(b"four"))
    return packed.getvalue()


def test_the_whole_project_is_unpacked(
    server: ScriptedServer, afina: Afina, tmp_path: Path
) -> None:
    server.say_bytes("GET /v1/afina/export", tar_of("files/file-1/rows.jsonl", "manifest.json"))
    done = afina("export", "--to", str(tmp_path / "out"), "--json")
    assert json.loads(done.stdout) | {"path": ""} == {"path": "", "files": 2, "bytes": 8}
    assert (tmp_path / "out" / "files" / "file-1" / "rows.jsonl").read_bytes() == b"four"


def test_an_export_that_breaks_off_or_leads_outside_is_refused(
    server: ScriptedServer, afina: Afina, tmp_path: Path
) -> None:
    server.say_bytes("GET /v1/afina/export", tar_of("../outside"))
    server.say_bytes("GET /v1/afina/export", tar_of("a")[:514])
    for number in range(2):
        done = afina("export", "--to", str(tmp_path / f"out{number}"))
        assert done.exit_code == 1
        assert "The export broke off" in done.stderr
    assert not (tmp_path / "outside").exists()
