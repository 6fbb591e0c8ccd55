"""No trick of spelling or naming leads a request into the network of the server."""

from __future__ import annotations

import socket
import threading

import pytest

from afina.domain.webhooks import pause_s
from afina.errors import InvalidRequest
from afina.service.outbound import Reach, Unreachable, check_url, is_public, post

PRIVATE = [
    "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0",
    "100.64.0.1", "192.0.0.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
    "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "ff02::1", "fec0::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1",
    "64:ff9b:1::a00:1", "2002:7f00:1::", "2002:a00:1::", "2001:0:4136:e378:8000:63bf:80ff:fffe",
    "2001:db8::1", "not an address",
]  # fmt: skip
TRICKS = [
    "https://127.0.0.1/", "https://2130706433/", "https://0x7f000001/", "https://0177.0.0.1/",
    "https://127.1/", "https://[::1]/", "https://[::ffff:127.0.0.1]/", "https://0/",
    "https://localhost/", "https://a.localhost/", "https://printer.local/",
    "https://metadata.google.internal/", "https://169.254.169.254/latest/meta-data",
    "https://[fe80::1]/", "https://[64:ff9b::7f00:1]/", "https://10.1/", "http://example.com/",
    "ftp://example.com/", "file:///etc/passwd", "gopher://example.com/", "https:///x", "https://",
    "//example.com/", "example.com", "javascript:alert(1)", "https://user@example.com/",
    "https://user:word@example.com/", "https://example.com\\@127.0.0.1/", "https://exam ple.com/",
    "https://example.com:99999/", "https://example.com:port/", "https://[::1", "https://ex\u0430mple.com/",
    "https://example.com/\r\nhost: a", "https://example.com/" + "a" * 3000,
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_no_private_address_passes_for_a_public_one(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.215.14", "8.8.8.8", "2606:4700::1111", "1.1.1.1"])
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("url", TRICKS)
def test_no_spelling_of_a_url_gets_through(url: str) -> None:
    with pytest.raises(InvalidRequest):
        check_url(url, Reach())


@pytest.mark.parametrize("found", [["127.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["::1"]])
def test_a_name_is_judged_by_every_address_that_it_has(found: list[str]) -> None:
    with pytest.raises(InvalidRequest, match="not on the open internet"):
        post("https://example.com/", {}, b"", Reach(resolve=lambda *_: found))


def test_a_name_is_asked_once_and_the_answer_is_where_the_request_goes() -> None:
    """A name server that says something else the second time (rebinding) is not asked again."""
    asked: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def resolve(host: str, port: int) -> list[str]:
            asked.append(host)
            return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

        def answer() -> None:
            link, _ = server.accept()
            with link:
                assert b"host: receiver.example" in link.recv(4096).lower()
                link.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        reach = Reach(allow_private=True, resolve=resolve)
        assert post(f"http://receiver.example:{port}/", {}, b"{}", reach) == 204
        thread.join()
    assert asked == ["receiver.example"]


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nx: ", b"not http\r\n\r\n"])
def test_a_receiver_that_never_ends_its_answer_is_left_in_time(said: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        links = []

        def answer() -> None:
            link, _ = server.accept()
            links.append(link)
            link.sendall(said)

        thread = threading.Thread(target=answer)
        thread.start()
        reach = Reach(allow_private=True, timeout_s=0.2)
        with pytest.raises(Unreachable):
            post(f"http://127.0.0.1:{port}/", {}, b"{}", reach)
        thread.join()
        links[0].close()


def test_a_host_without_an_address_is_unreachable() -> None:
    with pytest.raises(Unreachable, match="no address"):
        post("https://example.com/", {}, b"", Reach(resolve=lambda *_: []))


def test_pauses_grow_to_hours_and_are_never_the_same_for_all() -> None:
    pauses = [pause_s(attempt, 0.0) for attempt in range(1, 40)]
    assert pauses[:3] == [5.0, 15.0, 45.0]
    assert pauses == sorted(pauses)
    assert max(pauses) == 4 * 3600.0
    assert pause_s(1, 1.0) == 6.25
