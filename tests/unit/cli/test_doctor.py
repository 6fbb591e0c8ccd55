"""The doctor: each illness gets its verdict and its remedy, and a healthy machine none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.tiny import write_tiny_tokenizer
from typer.testing import Result

from afina.cli import diagnoses
from afina.domain.codec import encode
from afina.domain.models import BaseModel
from afina.inside_settings import EngineSettings
from afina.outside_settings import VllmSettings
from afina.serving.vllm.testing import ScriptedVllm
from afina.settings import Settings
from afina.text.tokenizer import ChatTokenizer

Afina = Callable[..., Result]
BASE = BaseModel("tiny", "/models/tiny", "0" * 64, 1, parameters=1_000_000)


def test_an_old_python_is_wrong() -> None:
    assert diagnoses.python((3, 10)).verdict == "wrong"
    assert diagnoses.python((3, 11)).verdict == "ok"


def test_a_processor_without_bf16_is_a_note_and_not_an_illness() -> None:
    assert diagnoses.processor(2, ["avx2", "avx512f", "avx512_bf16"]).verdict == "ok"
    slow = diagnoses.processor(2, ["avx2"])
    assert slow.verdict == "note"
    assert "jobs take longer" in slow.text
    assert diagnoses.processor(2, []).verdict == "ok"


def test_a_base_that_does_not_fit_is_named() -> None:
    small = diagnoses.memory(8 * 10**9, 2 * 10**9, [BASE])
    assert small.verdict == "ok"
    large = BaseModel("large", "/models/large", "0" * 64, 1, parameters=7 * 10**9)
    assert "large has 7,000,000,000" in diagnoses.memory(8 * 10**9, 6 * 10**9, [large]).text


def test_a_key_that_others_can_read_is_wrong(tmp_path: Path) -> None:
    key = tmp_path / "api-key"
    key.write_text("sk-afina-x")
    key.chmod(0o644)
    found = diagnoses.data_directory(tmp_path)
    assert (found.verdict, found.remedy) == ("wrong", f"Run `chmod 600 {key}`.")
    key.chmod(0o600)
    assert diagnoses.data_directory(tmp_path).verdict == "ok"


def test_a_damaged_database_is_wrong(tmp_path: Path) -> None:
    settings = Settings.load(data=tmp_path)
    assert diagnoses.database(settings).verdict == "note"
    (tmp_path / "afina.db").write_bytes(b"SQLite format 3\0" + b"x" * 8000)
    found = diagnoses.database(settings)
    assert found.verdict == "wrong"
    assert "damaged" in found.text


def test_no_model_at_all_is_wrong_and_a_refused_one_a_note(tmp_path: Path) -> None:
    settings = Settings.load(data=tmp_path, model_aliases={"gpt-4o-mini": "gone"})
    nothing = diagnoses.bases_here(settings, [])
    assert [found.verdict for found in nothing] == ["wrong"]
    refused = BaseModel("odd", "/m", "0" * 64, 1, admitted=False, refusal="its template fails.")
    verdicts = [found.verdict for found in diagnoses.bases_here(settings, [BASE, refused])]
    assert verdicts == ["ok", "note", "wrong"]  # the alias leads nowhere


def test_a_vllm_server_is_told_by_what_it_serves_and_takes(tmp_path: Path) -> None:
    write_tiny_tokenizer(tmp_path)
    tokenizer = ChatTokenizer.load(tmp_path)

    def visit(vllm: VllmSettings) -> list[tuple[str, str]]:
        settings = Settings(data=tmp_path, engine=EngineSettings(vllm=vllm))
        return [(found.verdict, found.text) for found in diagnoses.vllm(settings, [BASE])]

    assert diagnoses.vllm(Settings(data=tmp_path), [BASE]) == []
    with ScriptedVllm({"tiny": tokenizer}) as server:
        assert visit(VllmSettings(url=server.url)) == [
            ("ok", f"0.32.0 at {server.url}, 0 adapters; answers for tiny")
        ]
        named = visit(VllmSettings(url=server.url, models={"tiny": "elsewhere"}))
        assert named[0][0] == "wrong"
        assert "it lists tiny" in named[0][1]
    ((verdict, text),) = visit(VllmSettings(url=server.url))
    assert verdict == "wrong"
    assert "cannot be reached" in text
    with ScriptedVllm({"tiny": tokenizer}, takes_adapters=False) as server:
        verdicts = visit(VllmSettings(url=server.url))
    assert [verdict for verdict, _ in verdicts] == ["ok", "wrong"]
    assert "not for tunes" in verdicts[1][1]
    with ScriptedVllm({"tiny": tokenizer}, key="k") as server:
        ((verdict, text),) = visit(VllmSettings(url=server.url, key="other"))
    assert verdict == "wrong"
    assert "key" in text


def test_the_whole_visit_is_json_and_fails_only_where_something_is_wrong(
    afina: Afina, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AFINA_BASE_URL", "http://127.0.0.1:1")
    done = afina("doctor", "--json")
    found = {row["name"]: row["verdict"] for row in json.loads(done.stdout)}
    assert done.exit_code == 1
    assert [name for name, verdict in found.items() if verdict == "wrong"] == ["models"]
    folder = tmp_path / "data" / "models" / "tiny"
    folder.mkdir(parents=True)
    (folder / "afina.json").write_text(json.dumps(encode(BASE)))
    done = afina("doctor")
    assert done.exit_code == 0, done.stdout
    assert "WRONG" not in done.stdout


def test_a_wrong_setting_is_found_and_the_visit_goes_on(
    afina: Afina, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AFINA_PORT", "many")
    done = afina("doctor")
    assert done.exit_code == 1
    assert "WRONG  settings" in done.stdout
    assert "ok     Python" in done.stdout


def test_what_holds_the_disk_is_said_and_a_spent_budget_is_an_illness(tmp_path: Path) -> None:
    settings = Settings.load(data=tmp_path, disk={"max_bytes": 10_000_000, "min_free_bytes": 0})
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "api.log").write_bytes(b"x" * 9_000_000)
    (fine,) = diagnoses.disk_usage(settings)
    assert fine.verdict == "ok"
    assert "logs 9.0 MB" in fine.text
    (tmp_path / "logs" / "worker.log").write_bytes(b"x" * 2_000_000)
    (ill,) = diagnoses.disk_usage(settings)
    assert ill.verdict == "wrong"
    assert "afina disk clean" in str(ill.remedy)
    assert not (tmp_path / "afina.db").exists()
