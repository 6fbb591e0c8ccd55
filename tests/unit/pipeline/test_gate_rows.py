"""Which rows of a user the gate measures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.tiny_chat import FAMILIES, make_folder

from afina.data.kinds import RowKind
from afina.data.shards import ShardOptions, build_shards
from afina.domain.runs import BaseSpec
from afina.pipeline.gate import Candidate, GateRun
from afina.service import moderation_endpoint
from afina.service.platform import Platform
from afina.settings import Settings
from afina.text.renderer import Renderer


def test_of_preferences_the_preferred_answers_are_measured(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "base", FAMILIES["chatml"])
    renderer = Renderer.load(folder)
    asked = {"messages": [{"role": "user", "content": "Which?"}]}
    rows = [
        {
            "input": asked,
            "preferred_output": [{"role": "assistant", "content": f"good {n}"}],
            "non_preferred_output": [{"role": "assistant", "content": f"bad {n}"}],
        }
        for n in range(3)
    ]
    blob = tmp_path / "rows.jsonl"
    blob.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ShardOptions(kind=RowKind.PREFERENCE)
    data = Path(build_shards(blob, renderer, tmp_path / "shards", options).path)
    platform = Platform.open(Settings.load(data=tmp_path / "data"))
    base = BaseSpec("tiny", str(folder), "0" * 64)
    candidate = Candidate(
        base, renderer.end_tokens, "1" * 64, "default", "job", training=data, in_pairs=True
    )
    run = GateRun(platform, candidate, lambda: None)
    answers = {renderer.tokenizer.decode(wanted).strip() for _, wanted in run._turns(data, 1000, 1)}
    platform.close()
    assert answers == {"good 0", "good 1", "good 2"}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"backend": "off"}, "Moderation is off on this server."),
        (
            {
                "backend": "endpoint",
                "endpoint_model": "m",
                "endpoint_url": "http://127.0.0.1:1/v1",
                "wait_s": 0,
            },
            "The moderation endpoint http://127.0.0.1:1/v1 gave ConnectError.",
        ),
    ],
)
def test_that_nobody_judges_answers_is_said_as_it_is(
    given: dict[str, object], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moderation_endpoint, "TRIES", 1)
    platform = Platform.open(Settings.load(data=tmp_path / "data", moderation=given))
    base = BaseSpec("tiny", str(tmp_path), "0" * 64)
    run = GateRun(platform, Candidate(base, (), "1" * 64, "default", "job"), lambda: None)
    judge, said = run._judge()
    platform.close()
    assert (judge, said.text) == (None, why)
