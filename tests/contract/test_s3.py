"""Files in a bucket: what one machine uploads another can read, deleting deletes, and a bucket that
is away is said in plain words."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from tests.contract.live import Live, running, settings_for
from tests.s3 import bucket_for

from afina.outside_settings import S3Settings
from afina.store.remote_blobs import RemoteBlobs

CONTENT = b'{"prompt": "a", "completion": "b"}\n' * 1000


@pytest.fixture
def bucket_live(tmp_path: Path) -> Iterator[Live]:
    with running(settings_for(tmp_path, s3=bucket_for(tmp_path))) as live:
        yield live


def client_of(live: Live) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{live.url}/v1", api_key=live.key, max_retries=0)


def kept(live: Live) -> list[str]:
    blobs = live.platform.blobs
    assert isinstance(blobs, RemoteBlobs)
    return [sha256 for sha256, _ in blobs.stored()]


def test_what_is_uploaded_lies_in_the_bucket_and_comes_back_on_another_machine(
    bucket_live: Live,
) -> None:
    with client_of(bucket_live) as client:
        file = client.files.create(file=("a.jsonl", CONTENT), purpose="user_data")
        assert len(kept(bucket_live)) == 1
        shutil.rmtree(bucket_live.settings.blobs / "sha256")
        assert client.files.content(file.id).read() == CONTENT
        client.files.delete(file.id)
    assert kept(bucket_live) == []
    assert not list((bucket_live.settings.blobs / "sha256").glob("??/*"))


def test_bytes_that_were_changed_in_the_bucket_are_not_handed_out(bucket_live: Live) -> None:
    with client_of(bucket_live) as client:
        file = client.files.create(file=("a.jsonl", CONTENT), purpose="user_data")
        [sha256] = kept(bucket_live)
        blobs = bucket_live.platform.blobs
        assert isinstance(blobs, RemoteBlobs)
        other = bucket_live.settings.data / "other"
        other.write_bytes(b"something else")
        blobs.send(sha256, other)
        shutil.rmtree(bucket_live.settings.blobs / "sha256")
        with pytest.raises(openai.InternalServerError):
            client.files.content(file.id)


def test_a_bucket_that_is_away_refuses_for_the_moment(tmp_path: Path) -> None:
    away = S3Settings(
        bucket="nobody", endpoint="http://127.0.0.1:1", access_key_id="a", secret_access_key="b"
    )
    with running(settings_for(tmp_path, s3=away)) as live, client_of(live) as client:
        with pytest.raises(openai.InternalServerError) as refused:
            client.files.create(file=("a.jsonl", CONTENT), purpose="user_data")
        assert refused.value.status_code == 503
        assert client.files.list().data == []
