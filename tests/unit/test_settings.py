"""Where settings come from, which source wins, and how a wrong one is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from afina.errors import BadSettings
from afina.settings import Settings


def test_a_flag_beats_the_environment_and_the_environment_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "afina.toml").write_text("port = 1001\n")
    assert Settings.load(data=tmp_path).port == 1001
    monkeypatch.setenv("AFINA_PORT", "1002")
    assert Settings.load(data=tmp_path).port == 1002
    assert Settings.load(data=tmp_path, port=1003).port == 1003


def test_an_unknown_key_in_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "afina.toml").write_text("prot = 1\n")
    with pytest.raises(BadSettings, match="prot"):
        Settings.load(data=tmp_path)


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    (tmp_path / "afina.toml").write_text("port = = 1\n")
    with pytest.raises(BadSettings, match=r"afina\.toml cannot be read"):
        Settings.load(data=tmp_path)


def test_the_socket_has_a_path_that_the_system_takes(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    assert len(str(Settings.load(data=deep).engine_socket)) <= 100


def test_trainer_and_engine_share_one_precision(tmp_path: Path) -> None:
    """Whichever of the two settings names a precision decides for both."""
    assert Settings.load(data=tmp_path).precision == "auto"
    assert Settings.load(data=tmp_path, training={"precision": "fp32"}).precision == "fp32"
    assert Settings.load(data=tmp_path, engine={"precision": "fp32"}).precision == "fp32"


def test_two_precisions_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match=r"training\.precision is fp32 and engine\.precision"):
        Settings.load(data=tmp_path, training={"precision": "fp32"}, engine={"precision": "bf16"})


def test_weights_are_spread_over_two_processes_or_more(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match=r"training\.processes has to be 2 or more"):
        Settings.load(data=tmp_path, training={"shard_full_weights": True})
    shared = {"shard_full_weights": True, "processes": 2}
    assert Settings.load(data=tmp_path, training=shared).training.shard_full_weights


def test_offline_refuses_a_moderation_endpoint_elsewhere_and_none_here(tmp_path: Path) -> None:
    given = {"backend": "endpoint", "endpoint_model": "m", "endpoint_url": "http://10.0.0.5:1/v1"}
    with pytest.raises(BadSettings, match=r"moderation\.endpoint_url"):
        Settings.load(data=tmp_path, offline=True, moderation=given)
    here = {**given, "endpoint_url": "http://127.0.0.1:8000/v1"}
    assert Settings.load(data=tmp_path, offline=True, moderation=here).offline


@pytest.mark.parametrize(
    "given",
    [
        {"endpoint_url": "http://[::1"},
        {"endpoint_url": "127.0.0.1:8000/v1"},
        {"endpoint_url": "http://me:hunter2@/v1"},
        {"endpoint_url": "http://me:hunter2@host:99999/v1"},
        {"endpoint_url": "http://host/v 1"},
        {"endpoint_key": "hunter2\n"},
        {"endpoint_key": "clé-hunter2"},
    ],
)
def test_an_endpoint_that_cannot_be_asked_is_refused_and_its_secrets_are_not_shown(
    tmp_path: Path, given: dict[str, str]
) -> None:
    whole = {"backend": "endpoint", "endpoint_model": "m", "endpoint_url": "http://h/v1", **given}
    with pytest.raises(BadSettings, match=next(iter(given))) as told:
        Settings.load(data=tmp_path, moderation=whole)
    assert "hunter2" not in told.value.one_line()


@pytest.mark.parametrize(
    "given", [{"thresholds": {"ilicit": 0.9}}, {"categories": {"ilicit": "block"}}]
)
def test_a_category_that_is_none_is_refused_when_settings_are_read(
    tmp_path: Path, given: dict[str, object]
) -> None:
    with pytest.raises(BadSettings, match=r"names 'ilicit', which is no category.*illicit/violent"):
        Settings.load(data=tmp_path, moderation=given)


def test_no_key_is_shown_with_the_settings(tmp_path: Path) -> None:
    keys = {
        "hub": {"token": "canary1", "proxy": "http://u:canary2@10.0.0.5:1"},
        "integrations": {
            "wandb": {"api_key": "canary3"},
            "mlflow": {"password": "canary4", "token": "canary5"},
        },
    }
    assert "canary" not in repr(Settings.load(data=tmp_path, **keys))
