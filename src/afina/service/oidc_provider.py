"""What a sign-in asks of an OpenID Connect provider: its addresses, its keys, and one token, which
is looked at closely.

Only addresses are asked that the issuer's own well-known document names, through the guard of
`service.outbound`. What comes back is not believed: sizes are capped, shapes checked, and a token
counts only if one of the provider's public keys signed it, for this client and this sign-in, now.
"""

from __future__ import annotations

import base64
import binascii
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode

from afina.errors import AfinaError, BadSettings, Unauthenticated, Unavailable
from afina.outside_settings import OidcSettings
from afina.service.outbound import Reach, Resolver, exchange
from afina.service.platform import Platform

ALGORITHMS: Final = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
)
"""Signatures by a private key alone: with one secret for both sides, a public key could sign."""
LEEWAY_S: Final = 60
"""Clocks of two machines may differ by this."""
_KEYS_KEPT_S: Final = 3600.0
_DOCUMENT_MOST: Final = 512 * 1024
_TOKEN_MOST: Final = 64 * 1024
_TEXT_MOST: Final = 500


@dataclass(frozen=True)
class Identity:
    """Who the provider says it is. `subject` is the provider's own id and never changes."""

    subject: str
    email: str
    email_verified: bool


@dataclass(frozen=True)
class Endpoints:
    """The addresses that the issuer's document names."""

    authorization: str
    token: str
    keys: str
    basic: bool
    """Whether the client's secret goes into a header, else into the form."""


class OidcProvider:
    """One provider; its document and keys are kept for an hour. Safe for many threads."""

    def __init__(
        self, platform: Platform, settings: OidcSettings, resolve: Resolver | None = None
    ) -> None:
        self.settings = settings
        self._clock = platform.clock
        self._reach = Reach(settings.allow_private, settings.timeout_s, resolve)
        self._lock = threading.Lock()
        self._endpoints: tuple[float, Endpoints] | None = None
        self._keys: tuple[float, list[dict[str, Any]]] | None = None
        _joserfc()

    def endpoints(self) -> Endpoints:
        """Where to send people and where to ask. Raises Unavailable."""
        with self._lock:
            now = self._clock.monotonic()
            if self._endpoints is None or now - self._endpoints[0] > _KEYS_KEPT_S:
                self._endpoints = (now, self._discover())
            return self._endpoints[1]

    def address(self, redirect_uri: str, state: str, nonce: str, challenge: str) -> str:
        """Where a browser goes to sign in."""
        asked = {
            "response_type": "code",
            "client_id": self.settings.client_id,
            "redirect_uri": redirect_uri,
            "scope": "openid email",
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        begun = self.endpoints().authorization
        return f"{begun}{'&' if '?' in begun else '?'}{urlencode(asked)}"

    def identity(self, code: str, redirect_uri: str, verifier: str, nonce: str) -> Identity:
        """Who came back with `code`. Raises Unauthenticated, Unavailable."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
        }
        headers = {"content-type": "application/x-www-form-urlencoded"}
        endpoints, settings = self.endpoints(), self.settings
        if settings.client_secret is not None and endpoints.basic:
            pair = f"{quote(settings.client_id, safe='')}:{quote(settings.client_secret, safe='')}"
            headers["authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        else:
            form["client_id"] = settings.client_id
            if settings.client_secret is not None:
                form["client_secret"] = settings.client_secret
        status, told = self._ask("POST", endpoints.token, headers, urlencode(form).encode())
        token = told.get("id_token")
        if status != 200 or not isinstance(token, str):
            reason = told.get("error")
            shown = f" It says: {reason}." if isinstance(reason, str) and _is_plain(reason) else ""
            raise _unsound(f"The provider gave no token for this sign-in.{shown}")
        return self._identity_of(self._claims(token), nonce)

    def _discover(self) -> Endpoints:
        url = self.settings.issuer.rstrip("/") + "/.well-known/openid-configuration"
        status, told = self._ask("GET", url)
        if status != 200 or told.get("issuer") != self.settings.issuer:
            raise self._broken(
                f"{url} answered {status}"
                if status != 200
                else "its document names another issuer than the setting oidc.issuer"
            )
        found = []
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            address = told.get(name)
            schemes = ("https://", "http://") if self.settings.allow_private else ("https://",)
            if not isinstance(address, str) or not address.startswith(schemes):
                raise self._broken(f"its document has no {name} that begins with https://")
            found.append(address)
        methods = told.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        return Endpoints(found[0], found[1], found[2], "client_secret_basic" in methods)

    def _claims(self, token: str) -> dict[str, Any]:
        """The claims of a token that one of the provider's keys signed."""
        jose = _joserfc()
        if len(token) > _TOKEN_MOST or token.count(".") != 2:
            raise _unsound("Its token is no signed one.")
        header = _header(token)
        if header.get("alg") not in ALGORITHMS:
            raise _unsound("Its token is not signed as it must be, with a private key.")
        for again in (False, True):  # the provider may have a new key since they were asked for
            keys = _fitting(self._public_keys(again=again), header)
            if keys:
                break
        for key in keys:
            try:
                public = jose.jwk.import_key(key)
                found = jose.jwt.decode(token, public, algorithms=list(ALGORITHMS))
            except (jose.errors.JoseError, ValueError, TypeError, KeyError):
                continue
            return dict(found.claims)
        raise _unsound("No key of the provider signed its token.")

    def _identity_of(self, claims: Mapping[str, Any], nonce: str) -> Identity:
        now = self._clock.now()
        audience = claims.get("aud")
        audiences = [audience] if isinstance(audience, str) else audience
        expires, issued = _time(claims.get("exp")), _time(claims.get("iat"))
        if claims.get("iss") != self.settings.issuer:
            raise _unsound("Its token names another issuer.")
        if not isinstance(audiences, list) or self.settings.client_id not in audiences:
            raise _unsound("Its token is for another client.")
        if (len(audiences) > 1 or "azp" in claims) and claims.get("azp") != self.settings.client_id:
            raise _unsound("Its token was given to another client.")
        if expires is None or issued is None:
            raise _unsound("Its token does not say how long it holds.")
        if now > expires + LEEWAY_S:
            raise _unsound("Its token has expired.")
        if issued > now + LEEWAY_S:
            raise _unsound("Its token is of a time to come; look at both machines' clocks.")
        if not isinstance(claims.get("nonce"), str) or claims["nonce"] != nonce:
            raise _unsound("Its token belongs to another sign-in.")
        subject, email = claims.get("sub"), claims.get("email")
        if not isinstance(subject, str) or not 1 <= len(subject) <= 255:
            raise _unsound("Its token names nobody.")
        if not isinstance(email, str) or len(email) > 320:
            raise _unsound("Its token holds no e-mail address; let the provider give the claim.")
        return Identity(subject, email.lower(), claims.get("email_verified") is True)

    def _public_keys(self, *, again: bool) -> list[dict[str, Any]]:
        with self._lock:
            now = self._clock.monotonic()
            if not again and self._keys is not None and now - self._keys[0] <= _KEYS_KEPT_S:
                return self._keys[1]
        status, told = self._ask("GET", self.endpoints().keys)
        listed = told.get("keys")
        if status != 200 or not isinstance(listed, list):
            raise self._broken("it shows no keys")
        # A shared secret among them would let whoever reads it sign.
        found = [key for key in listed if isinstance(key, dict) and key.get("kty") in ("RSA", "EC")]
        with self._lock:
            self._keys = (now, found)
        return found

    def _ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> tuple[int, dict[str, Any]]:
        asked = {"accept": "application/json", "user-agent": "afina", **(headers or {})}
        try:
            status, raw = exchange(method, url, asked, body, self._reach, _DOCUMENT_MOST)
            told = json.loads(raw)
        except AfinaError as error:
            raise self._broken(error.message.rstrip(".")) from None
        except (ValueError, RecursionError):
            raise self._broken("what it answered is not JSON") from None
        if not isinstance(told, dict):
            raise self._broken("what it answered is no JSON object")
        return status, told

    def _broken(self, why: str) -> Unavailable:
        return Unavailable(
            f"The sign-in provider {self.settings.issuer} cannot be used now: {why}.",
            code="oidc_provider",
            remedy="Sign in with an API key, or look at [oidc] in afina.toml: a provider in your "
            "own network needs allow_private = true there.",
        )


def _fitting(keys: list[dict[str, Any]], header: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The keys that may have signed: of the id that the token names, and for signatures."""
    kid = header.get("kid")
    return [
        key
        for key in keys
        if (kid is None or key.get("kid") in (None, kid)) and key.get("use") in (None, "sig")
    ]


def _header(token: str) -> dict[str, Any]:
    part = token.partition(".")[0]
    try:
        found = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _unsound("Its token cannot be read.")
    return found


def _time(value: object) -> float | None:
    """Unix seconds, where it is a number."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _is_plain(text: str) -> bool:
    return len(text) <= _TEXT_MOST and text.replace("_", "").isalnum() and text.isascii()


def _unsound(why: str) -> Unauthenticated:
    return Unauthenticated(
        f"This sign-in was refused. {why}", code="oidc_refused", remedy="Begin again."
    )


def _joserfc() -> Any:
    """The library that checks signatures, loaded where there is a provider. Raises BadSettings."""
    try:
        import joserfc.errors
        import joserfc.jwk
        import joserfc.jwt
    except ImportError:
        raise BadSettings(
            "Sign-in by OpenID Connect is set up, and its library is not installed.",
            param="oidc",
            remedy="Install it with `pip install afina[oidc]`.",
        ) from None
    return joserfc
