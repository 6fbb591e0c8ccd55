"""A small OpenID Connect provider on a port of its own: real addresses, real codes, real tokens
signed with a real key. Whoever comes is signed in as `person` at once.

It holds its client to the flow: a code counts once, with the address that it was given for, the
client's secret, and the verifier of its challenge.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT = "afina-dashboard"
SECRET = "not-a-secret-in-a-test"
Claims = dict[str, Any]


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


class Provider:
    """Serves until the `with` block ends."""

    def __init__(self) -> None:
        self.person: Claims = {"sub": "7", "email": "maria@example.com", "email_verified": True}
        self.change: Callable[[Claims], Claims] = lambda claims: claims
        """What the next tokens say instead."""
        self.sign: Callable[[Claims], str] = self.signed
        self.document: Claims = {}
        """What the well-known document says instead."""
        self.refuses: str | None = None
        self.asked: list[str] = []
        self._codes: dict[str, Claims] = {}
        self.rotate()
        handler = type("Handler", (_Handler,), {"provider": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.issuer = f"http://127.0.0.1:{self._server.server_port}/realm"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Provider:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def rotate(self) -> None:
        """From now on another key signs, and the old one is shown no more."""
        self.key = RSAKey.generate_key(2048, {"kid": secrets.token_hex(4), "use": "sig"})

    def signed(self, claims: Claims, key: RSAKey | None = None) -> str:
        """A token as it ought to be."""
        return jwt.encode({"alg": "RS256", "kid": self.key.kid}, claims, key or self.key)

    def answer(self, method: str, path: str, form: dict[str, str], auth: str) -> tuple[int, Any]:
        """Status and JSON, or 302 and an address."""
        self.asked.append(path)
        if path == "/realm/.well-known/openid-configuration":
            return 200, {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
                **self.document,
            }
        if path == "/realm/keys":
            return 200, {"keys": [self.key.as_dict(private=False)]}
        if path == "/realm/authorize" and method == "GET":
            return 302, self._authorized(form)
        if path == "/realm/token" and method == "POST":
            return self._token(form, auth)
        return 404, {}

    def _authorized(self, asked: dict[str, str]) -> str:
        assert asked["response_type"] == "code"
        assert asked["client_id"] == CLIENT
        assert asked["code_challenge_method"] == "S256"
        assert "openid" in asked["scope"].split()
        if self.refuses is not None:
            back = {"error": self.refuses}
        else:
            code = secrets.token_urlsafe(16)
            self._codes[code] = asked
            back = {"code": code, "iss": self.issuer}
        return f"{asked['redirect_uri']}?{urlencode({**back, 'state': asked['state']})}"

    def _token(self, form: dict[str, str], auth: str) -> tuple[int, Any]:
        asked = self._codes.pop(form["code"], None)
        if auth != "Basic " + base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode():
            return 401, {"error": "invalid_client"}
        challenge = b64(hashlib.sha256(form["code_verifier"].encode()).digest())
        if (
            asked is None
            or asked["redirect_uri"] != form["redirect_uri"]
            or asked["code_challenge"] != challenge
        ):
            return 400, {"error": "invalid_grant"}
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT,
            "iat": now,
            "exp": now + 300,
            "nonce": asked["nonce"],
            **self.person,
        }
        return 200, {"token_type": "Bearer", "id_token": self.sign(self.change(claims))}


class _Handler(BaseHTTPRequestHandler):
    provider: Provider

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self._send(url.path, {k: v[0] for k, v in parse_qs(url.query).items()})

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["content-length"])).decode()
        self._send(self.path, {k: v[0] for k, v in parse_qs(raw).items()})

    def _send(self, path: str, form: dict[str, str]) -> None:
        auth = self.headers.get("authorization", "")
        status, told = self.provider.answer(self.command, path, form, auth)
        body = b"" if status == 302 else json.dumps(told).encode()
        self.send_response(status)
        if status == 302:
            self.send_header("location", told)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""
