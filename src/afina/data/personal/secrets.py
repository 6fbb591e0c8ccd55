"""Keys, tokens, passwords, and URLs that carry them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from afina.data.personal.spans import PersonalKind, Span

_PREFIXED: Final = re.compile(
    r"(?<![A-Za-z0-9_])(?:"
    r"sk-(?:proj-|ant-|or-|svcacct-)?[A-Za-z0-9_-]{20,}"
    r"|(?:AKIA|ASIA)[0-9A-Z]{16}(?![0-9A-Za-z])"
    r"|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,}|glpat-[A-Za-z0-9_-]{20,}"
    r"|xox[abeprs]-[A-Za-z0-9-]{10,}|AIza[0-9A-Za-z_-]{35}|hf_[A-Za-z0-9]{30,}"
    r"|[srp]k_(?:live|test)_[0-9A-Za-z]{16,}|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"
    r"|npm_[A-Za-z0-9]{36}|dop_v1_[0-9a-f]{64}|pypi-[A-Za-z0-9_-]{50,}"
    r"|eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"
    r"|afina-[A-Za-z0-9_-]{32,}"
    r")"
)
_MARKS: Final = (
    "sk-", "AKIA", "ASIA", "gh", "glpat-", "xox", "AIza", "hf_", "k_live_", "k_test_", "SG.",
    "npm_", "dop_v1_", "pypi-", "eyJ", "afina-",
)  # fmt: skip
_PEM: Final = re.compile(
    r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----"
    r"(?:.*?-----END (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----|.*)",
    re.S,
)
_NAMED: Final = re.compile(
    r"(?i)(?:api[ _-]?key|access[ _-]?key|secret(?:[ _-]?key)?|auth[ _-]?token|access[ _-]?token"
    r"|client[ _-]?secret|token|bearer|clave de api|chave de api)"
    r"[\"']?\s{0,3}(?::|=|=>|\bis\b|\bes\b|é|\s)\s{0,3}[\"']?"
    r"(?P<value>[A-Za-z0-9_\-./+]{16,}={0,2})"
)
_PASSWORD: Final = re.compile(
    r"(?i)(?<![a-z])(?:passwords?|passwort|passwd|passphrase|pwd|contrase[nñ]as?|senhas?|clave"
    r"|palavra-passe)[\"'”»*]{0,2}\s{0,3}"
    r"(?P<how>[:=]|=>|->|is:?|was|es:?|era|é:?|to|a|para)\s{0,3}"
    r"(?P<quote>[\"'“«`]{0,2})(?P<value>[^\s\"'“”«»`]{4,64})"
)
_PASSWORD_WORDS: Final = ("pass", "pwd", "contrase", "senha", "clave", "palavra-passe")
_NAMED_WORDS: Final = ("key", "token", "secret", "bearer", "clave", "chave")
_STANDS_FOR: Final = re.compile(
    r"<[^>]*>?$|\{.*\}|\$\{|\$[A-Z_]+$|%[A-Z_]+%$|%\(|[A-Za-z_.]{3,}\($|\*+$|x+$"
)
"""A placeholder, a variable or a call, as documentation has them, and no password."""
_URL: Final = re.compile(r"(?i)\b[a-z][a-z0-9+.-]{1,15}://[^\s<>\"'`]+")
_USERINFO: Final = re.compile(r"^[^/?#@:]*:[^/?#@]+@")
_PARAMETER: Final = re.compile(
    r"(?i)[?&#;](?:[\w.-]*(?:token|secret|passw(?:or)?d|pwd|senha|signature|api_?key|apikey"
    r"|session(?:id)?|credential)[\w.-]*|key|sig|auth|code|jwt)=(?P<value>[^&#\s]{6,})"
)
_END: Final = ".,;:)]}>!?\"'"


def find_secrets(text: str) -> Iterator[Span]:
    """Everything in `text` that opens something."""
    if "://" in text:
        yield from _urls(text)
    if _has_one(text, _MARKS):
        for match in _PREFIXED.finditer(text):
            yield Span(match.start(), match.end(), PersonalKind.API_KEY, "known-prefix")
    if "PRIVATE KEY" in text:
        for match in _PEM.finditer(text):
            yield Span(match.start(), match.end(), PersonalKind.API_KEY, "private-key")
    lower = text.lower()
    if _has_one(lower, _NAMED_WORDS):
        yield from _named(text)
    if _has_one(lower, _PASSWORD_WORDS):
        yield from _passwords(text)


def _has_one(text: str, words: tuple[str, ...]) -> bool:
    for word in words:  # noqa: SIM110  (four times as fast as any() over so few)
        if word in text:
            return True
    return False


def _urls(text: str) -> Iterator[Span]:
    for match in _URL.finditer(text):
        url = match.group().rstrip(_END)
        rest = url.split("://", 1)[1]
        end = match.start() + len(url)
        if _USERINFO.match(rest):
            yield Span(match.start(), end, PersonalKind.URL_SECRET, "password-in-url")
        elif _PARAMETER.search(rest):
            yield Span(match.start(), end, PersonalKind.URL_SECRET, "secret-parameter")


def _named(text: str) -> Iterator[Span]:
    for match in _NAMED.finditer(text):
        value = match.group("value").rstrip(".-/")
        mixed = any(c.isdigit() for c in value) and any(c.isalpha() for c in value)
        if len(value) >= 16 and mixed and not _is_wordy(value):
            start = match.start("value")
            yield Span(start, start + len(value), PersonalKind.API_KEY, "named")


def _is_wordy(value: str) -> bool:
    """Paths and identifiers made of words, as documentation has them."""
    parts = re.split(r"[-_./+]", value)
    return (
        len(parts) > 2 and sum(part.isalpha() and part.islower() for part in parts) > len(parts) / 2
    )


def _passwords(text: str) -> Iterator[Span]:
    for match in _PASSWORD.finditer(text):
        value = match.group("value").rstrip(".,;:")
        if not match.group("quote"):
            value = value.rstrip("]}")
        signs = sum(
            (
                any(c.isdigit() for c in value),
                any(c.isupper() for c in value[1:]),
                any(not c.isalnum() for c in value.strip("*.,;:!?()[]{}<>-_")),
            )
        )
        marked = match.group("how") in (":", "=", "=>", "->")
        enough = signs >= 1 if marked or match.group("quote") else signs >= 2
        if len(value) >= 4 and enough and not _STANDS_FOR.match(value):
            start = match.start("value")
            yield Span(start, start + len(value), PersonalKind.PASSWORD, "named")
