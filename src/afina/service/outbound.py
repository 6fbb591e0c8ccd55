"""Requests to addresses that others name: one guarded exchange, and nothing else.

The host is resolved once, every address that it has must be public, and the connection goes to an
address that was checked; so a name that means something else a moment later leads nowhere. There
are no redirects and no proxies, and of an answer no more is read than the caller allows.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

from afina.errors import InvalidRequest, Unavailable

Resolver = Callable[[str, int], Sequence[str]]
_NAT64: Final = tuple(ipaddress.IPv6Network(net) for net in ("64:ff9b::/96", "64:ff9b:1::/48"))
_URL_MOST: Final = 2048


@dataclass(frozen=True)
class Reach:
    """Where requests may go, and how long one may take in all."""

    allow_private: bool = False
    timeout_s: float = 10.0
    resolve: Resolver | None = None


class Unreachable(Unavailable):
    """The receiver could not be asked, or did not answer in time."""


def check_url(url: str, reach: Reach) -> SplitResult:
    """The parts of a URL that may be asked as far as can be seen without resolving it. Raises
    InvalidRequest."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise _bad_url("it cannot be read") from None
    schemes = ("https", "http") if reach.allow_private else ("https",)
    if len(url) > _URL_MOST or not url.isascii() or not url.isprintable() or " " in url:
        raise _bad_url(f"it must be plain ASCII of at most {_URL_MOST} characters")
    if parts.scheme not in schemes:
        raise _bad_url("it must begin with https://")
    if not host or parts.username is not None or parts.password is not None or "\\" in url:
        raise _bad_url("it must name a host, and no user or password")
    if not reach.allow_private:
        literal = _literal(host)
        if host == "localhost" or host.endswith((".localhost", ".local", ".internal")):
            raise _private(host)
        if literal is not None and not is_public(literal):
            raise _private(host)
    return parts


def post(url: str, headers: Mapping[str, str], body: bytes, reach: Reach) -> int:
    """The status of the answer. Raises as `exchange`."""
    return exchange("POST", url, headers, body, reach)[0]


def exchange(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes | None,
    reach: Reach,
    most_bytes: int = 0,
) -> tuple[int, bytes]:
    """Status and body of the answer; of the body nothing is read where `most_bytes` is 0. Raises
    InvalidRequest for an address that may not be asked, Unreachable where nobody answers in time
    or the body is larger."""
    parts = check_url(url, reach)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    address = _checked_address(host, port, reach)
    connection = _Pinned(host, port, address, parts.scheme == "https", reach.timeout_s)
    # A timeout of the socket counts from byte to byte; this one ends the whole exchange.
    end = threading.Timer(reach.timeout_s, connection.cut)
    end.daemon = True
    end.start()
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request(method, target, body, dict(headers))
        answer = connection.getresponse()
        content = answer.read(most_bytes + 1) if most_bytes else b""
        if connection.was_cut:
            raise TimeoutError
        if len(content) > most_bytes:
            raise ValueError
        return answer.status, content
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unreachable(
            f"{host} could not be asked: {_reason(error)}.", code="webhook_unreachable"
        ) from None
    finally:
        end.cancel()
        connection.close()


def is_public(text: str) -> bool:
    """Whether an address is one of the open internet, whatever it is wrapped in."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address.teredo is not None:
            inner = address.teredo[1]
        if any(address in net for net in _NAT64) or int(address) >> 32 == 0:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if address.is_site_local:
            return False
    return address.is_global and not (
        address.is_multicast
        or address.is_reserved
        or address.is_loopback
        or address.is_link_local
        or address.is_unspecified
    )


class _Pinned(http.client.HTTPConnection):
    """A connection to an address that was checked, under the name that was asked for."""

    def __init__(self, host: str, port: int, address: str, tls: bool, timeout_s: float) -> None:
        super().__init__(host, port, timeout=timeout_s)
        self._address = address
        self._tls = tls
        self.default_port = 443 if tls else 80
        self.was_cut = False

    def connect(self) -> None:
        self.sock = socket.create_connection((self._address, self.port), self.timeout)
        if self._tls:
            context = ssl.create_default_context()
            self.sock = context.wrap_socket(self.sock, server_hostname=self.host)

    def cut(self) -> None:
        """Ends the exchange from another thread."""
        self.was_cut = True
        sock = self.sock
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                return


def _checked_address(host: str, port: int, reach: Reach) -> str:
    try:
        found = (reach.resolve or _resolve)(host, port)
    except (OSError, UnicodeError):
        found = []
    if not found:
        raise Unreachable(f"The host {host} has no address.", code="webhook_unreachable")
    if not reach.allow_private and not all(is_public(address) for address in found):
        raise _private(host)
    return found[0]


def _resolve(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


def _literal(host: str) -> str | None:
    """The address that a host spells out: also as one number, in octal or hexadecimal."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return None


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLError):
        return f"its TLS certificate or protocol was refused ({error.reason})"
    if isinstance(error, http.client.HTTPException):
        return "what it answered is not HTTP"
    return str(getattr(error, "strerror", None) or type(error).__name__).lower()


def _bad_url(why: str) -> InvalidRequest:
    return InvalidRequest(
        f"The URL cannot be used: {why}.", param="url", code="invalid_webhook_url"
    )


def _private(host: str) -> InvalidRequest:
    return InvalidRequest(
        f"The host {host[:200]} is not on the open internet.",
        param="url",
        code="private_address",
        remedy="For receivers in your own network, set webhooks.allow_private in afina.toml.",
    )
