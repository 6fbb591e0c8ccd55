"""Files: what goes in comes out, only for its owner, and is really gone when deleted."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.platforms import ROW, clock_of, open_platform, start_job, upload

from afina.domain.accounts import Caller
from afina.domain.files import FileStatus, Purpose
from afina.errors import InvalidRequest, NotFound, TooLarge
from afina.service.files import (
    FileQuery,
    delete_file,
    get_file,
    list_files,
    open_file,
    upload_file,
)
from afina.service.jobs import cancel_job
from afina.service.platform import Platform
from afina.service.sweep import sweep


def stored(platform: Platform) -> list[Path]:
    return [path for path in platform.settings.blobs.rglob("*") if path.is_file()]


def test_a_file_comes_back_byte_by_byte(platform: Platform, caller: Caller) -> None:
    file = upload_file(platform, caller, [ROW, ROW], "a.jsonl", "fine-tune")
    assert (file.bytes, file.purpose, file.status) == (
        2 * len(ROW),
        Purpose.FINE_TUNE,
        FileStatus.PROCESSED,
    )
    found, handle = open_file(platform, caller, file.id)
    with handle:
        assert handle.read() == ROW * 2
    assert found == file == get_file(platform, caller, file.id)


@pytest.mark.parametrize("verb", [get_file, delete_file, open_file])
def test_another_projects_file_is_not_there(
    platform: Platform, caller: Caller, stranger: Caller, verb: object
) -> None:
    file = upload(platform, caller)
    assert callable(verb)
    with pytest.raises(NotFound, match=f"No such File object: {file.id}"):
        verb(platform, stranger, file.id)
    assert list_files(platform, stranger).data == ()
    assert get_file(platform, caller, file.id) == file


def test_a_file_name_is_never_a_path(platform: Platform, caller: Caller) -> None:
    name = "../../../etc/passwd"
    file = upload_file(platform, caller, [ROW], name, "fine-tune")
    assert file.filename == name
    assert [path.name for path in stored(platform)] == [file.sha256[2:]]


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 513, "a\x00b"])
def test_names_that_cannot_be_shown_are_refused(
    platform: Platform, caller: Caller, name: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        upload_file(platform, caller, [ROW], name, "fine-tune")
    assert caught.value.param == "file"


@pytest.mark.parametrize("purpose", ["vision", "fine-tune-results", "", "x" * 1000])
def test_only_purposes_that_are_served_are_taken(
    platform: Platform, caller: Caller, purpose: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        upload_file(platform, caller, [ROW], "a", purpose)
    assert caught.value.param == "purpose"
    assert stored(platform) == []


@pytest.mark.parametrize(
    "content",
    [b"question,answer\nq,a\n", b"[1, 2]", b"PK\x03\x04\x00\x00", b'{"a"\x00}', b"\xff\xfe{\x00"],
)
def test_what_is_plainly_no_jsonl_is_refused_at_once(
    platform: Platform, caller: Caller, content: bytes
) -> None:
    with pytest.raises(InvalidRequest, match="Expected file to have JSONL format"):
        upload(platform, caller, content)
    assert stored(platform) == []


@pytest.mark.parametrize(
    ("content", "what", "remedy"),
    [
        (b"%PDF-1.7\n", "The file is a PDF.", "Put questions and answers into a table"),
        (b"\x1f\x8b" + bytes(30), "The file is compressed (gzip).", "Unpack it first."),
        (b"\x89PNG\r\n" + bytes(9), "The file is a picture (PNG).", "Bring the table"),
        (b"PAR1" + bytes(9), "The file is a Parquet file.", "Use `afina data convert`"),
        (b"question,answer\n", "does not begin with one.", "Use `afina data convert`"),
        ('{"a": 1}'.encode("utf-16-le"), "does not begin with one.", "Use `afina data convert`"),
    ],
)
def test_what_a_file_is_that_is_no_jsonl_is_told_with_its_remedy(
    platform: Platform, caller: Caller, content: bytes, what: str, remedy: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        upload(platform, caller, content)
    assert refused.value.message.endswith(what)
    assert str(refused.value.remedy).startswith(remedy)


def test_a_zero_behind_the_first_row_is_named_by_its_place(
    platform: Platform, caller: Caller
) -> None:
    with pytest.raises(InvalidRequest, match=r"Line 1: .*U\+0000 stands there"):
        upload(platform, caller, ROW.rstrip() + b"\0\n" + ROW)


@pytest.mark.parametrize("content", [b"\xef\xbb\xbf" + ROW, b"\n  \n" + ROW, b"{}\n"])
def test_what_is_jsonl_is_left_to_the_job(
    platform: Platform, caller: Caller, content: bytes
) -> None:
    assert upload(platform, caller, content).bytes == len(content)


def test_a_line_that_is_no_json_object_is_refused_with_its_number(
    platform: Platform, caller: Caller
) -> None:
    with pytest.raises(InvalidRequest, match="Line 2: ") as refused:
        upload(platform, caller, ROW + b"{broken\n")
    assert refused.value.code == "invalid_file_format"
    assert stored(platform) == []


@pytest.mark.parametrize("content", [b"", b"\n \r\n\t\n", b"\xef\xbb\xbf\n"])
def test_an_empty_file_is_refused(platform: Platform, caller: Caller, content: bytes) -> None:
    with pytest.raises(InvalidRequest, match="empty"):
        upload(platform, caller, content)


def test_a_file_may_be_as_large_as_the_limit_and_no_larger(tmp_path: Path, caller: Caller) -> None:
    platform = open_platform(tmp_path / "small", max_upload_bytes=1024)
    mine = Caller(caller.project_id, caller.key_id, caller.organization_id)
    with pytest.raises(TooLarge):
        upload(platform, mine, b"{" + b" " * 1024)
    assert stored(platform) == []
    platform.close()


def test_lists_go_page_by_page_in_both_orders(platform: Platform, caller: Caller) -> None:
    made = [upload(platform, caller).id for _ in range(7)]
    for order, expected in (("asc", made), ("desc", made[::-1])):
        seen: list[str] = []
        after: str | None = None
        while True:
            query = FileQuery(limit=3, order=order, after=after)  # type: ignore[arg-type]
            page = list_files(platform, caller, query)
            seen += [file.id for file in page.data]
            if not page.has_more:
                break
            after = page.data[-1].id
        assert seen == expected


def test_lists_can_be_narrowed_to_a_purpose(platform: Platform, caller: Caller) -> None:
    upload(platform, caller)
    other = upload_file(platform, caller, [b"notes"], "n.txt", "user_data")
    assert list_files(platform, caller, FileQuery(purpose="user_data")).data == (other,)


@pytest.mark.parametrize(
    "query", [FileQuery(limit=0), FileQuery(limit=10_001), FileQuery(after="file-none")]
)
def test_bad_pages_are_refused(platform: Platform, caller: Caller, query: FileQuery) -> None:
    with pytest.raises(InvalidRequest):
        list_files(platform, caller, query)


def test_a_strangers_file_is_no_cursor(
    platform: Platform, caller: Caller, stranger: Caller
) -> None:
    file = upload(platform, caller)
    with pytest.raises(InvalidRequest):
        list_files(platform, stranger, FileQuery(after=file.id))


def test_a_deleted_files_bytes_are_gone(platform: Platform, caller: Caller) -> None:
    file = upload(platform, caller)
    delete_file(platform, caller, file.id)
    assert stored(platform) == []
    with pytest.raises(NotFound):
        get_file(platform, caller, file.id)


def test_bytes_that_another_file_holds_stay(
    platform: Platform, caller: Caller, stranger: Caller
) -> None:
    mine, theirs = upload(platform, caller), upload(platform, stranger)
    delete_file(platform, caller, mine.id)
    _, handle = open_file(platform, stranger, theirs.id)
    with handle:
        assert handle.read() == ROW * 10


def test_a_reader_keeps_what_it_opened(platform: Platform, caller: Caller) -> None:
    file = upload(platform, caller)
    _, handle = open_file(platform, caller, file.id)
    delete_file(platform, caller, file.id)
    with handle:
        assert handle.read() == ROW * 10


def test_a_file_in_use_is_not_deleted_and_the_job_is_named(
    platform: Platform, caller: Caller
) -> None:
    training, validation = upload(platform, caller), upload(platform, caller)
    job = start_job(platform, caller, training_file=training.id, validation_file=validation.id)
    for file in (training, validation):
        with pytest.raises(InvalidRequest, match=job.id) as caught:
            delete_file(platform, caller, file.id)
        assert caught.value.code == "file_in_use"
    cancel_job(platform, caller, job.id)
    delete_file(platform, caller, training.id)


def test_what_was_made_of_a_file_goes_with_it(platform: Platform, caller: Caller) -> None:
    file = upload(platform, caller)
    job = start_job(platform, caller, training_file=file.id)
    cancel_job(platform, caller, job.id)
    for folder in (platform.settings.shards / file.sha256, platform.settings.runs / job.id):
        folder.mkdir(parents=True)
        (folder / "rows").write_bytes(ROW)
    delete_file(platform, caller, file.id)
    left = [path for path in platform.settings.data.rglob("*") if path.is_file()]
    assert not any(ROW in path.read_bytes() for path in left)


def test_an_expired_file_is_gone_and_swept(platform: Platform, caller: Caller) -> None:
    file = upload_file(platform, caller, [ROW], "a.jsonl", "fine-tune", 3600)
    assert file.expires_at == file.created_at + 3600
    clock_of(platform).advance(3599)
    assert get_file(platform, caller, file.id) == file
    assert sweep(platform).expired_files == 0
    clock_of(platform).advance(1)
    with pytest.raises(NotFound):
        get_file(platform, caller, file.id)
    assert list_files(platform, caller).data == ()
    report = sweep(platform)
    assert (report.expired_files, report.bytes) == (1, len(ROW))
    assert stored(platform) == []


def test_a_job_keeps_an_expired_file_until_it_is_over(platform: Platform, caller: Caller) -> None:
    file = upload_file(platform, caller, [ROW], "a.jsonl", "fine-tune", 3600)
    job = start_job(platform, caller, training_file=file.id)
    clock_of(platform).advance(4000)
    assert sweep(platform).expired_files == 0
    cancel_job(platform, caller, job.id)
    assert sweep(platform).expired_files == 1


@pytest.mark.parametrize("seconds", [0, 3599, 2_592_001])
def test_expiry_has_its_limits(platform: Platform, caller: Caller, seconds: int) -> None:
    with pytest.raises(InvalidRequest):
        upload_file(platform, caller, [ROW], "a.jsonl", "fine-tune", seconds)
