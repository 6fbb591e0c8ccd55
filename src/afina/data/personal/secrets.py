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
    r"|shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}|sq0(?:atp|csp|idp)-[A-Za-z0-9_-]{22,}"
    r"|EAACEdEose0cBA[A-Za-z0-9]+|ya29\.[A-Za-z0-9_-]{20,}|gsk_[A-Za-z0-9]{40,}"
    r"|r8_[A-Za-z0-9]{36,}|dapi[0-9a-f]{32}|lin_api_[A-Za-z0-9]{30,}|whsec_[A-Za-z0-9+/=]{24,}"
    r"|ATATT3[A-Za-z0-9_=-]{20,}|NRAK-[A-Z0-9]{27}|pplx-[A-Za-z0-9]{40,}|nvapi-[A-Za-z0-9_-]{40,}"
    r"|key-[0-9a-z]{32}(?![0-9a-z])|xkeysib-[0-9a-f]{64}-\w{16}|tvly-[A-Za-z0-9-]{24,}"
    r"|sbp_[0-9a-f]{40}|dckr_pat_[A-Za-z0-9_-]{20,}|rubygems_[0-9a-f]{48}|ph[cx]_[A-Za-z0-9]{40,}"
    r"|AGE-SECRET-KEY-1[0-9A-Z]{50,}|\d{8,10}:AA[A-Za-z0-9_-]{30,}"
    r")"
)
_MARKS: Final = (
    "sk-", "AKIA", "ASIA", "gh", "glpat-", "xox", "AIza", "hf_", "k_live_", "k_test_", "SG.",
    "npm_", "dop_v1_", "pypi-", "eyJ", "afina-", "shp", "sq0", "EAAC", "ya29.", "gsk_", "r8_",
    "dapi", "lin_api_", "whsec_", "ATATT3", "NRAK-", "pplx-", "nvapi-", "key-", "xkeysib-", "tvly-",
    "sbp_", "dckr_pat_", "rubygems_", "phc_", "phx_", "AGE-SECRET", ":AA",
)  # fmt: skip
_PEM: Final = re.compile(
    r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----"
    r"(?:.*?-----END (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----|.*)",
    re.S,
)
_NAMED: Final = re.compile(
    r"(?i)(?:api[ _-]?key|(?:access|account)[ _-]?key|secret(?:[ _-]?key)?|auth[ _-]?token"
    r"|access[ _-]?token|client[ _-]?secret|token|bearer|clave de api|chave de api)"
    r"[\"']?\s{0,3}(?::|=|=>|\bis\b|\bes\b|é|\s)\s{0,3}[\"']?"
    r"(?P<value>[A-Za-z0-9_\-./+]{16,}={0,2})"
)
_PASSWORD: Final = re.compile(
    r"(?i)(?<![a-z])(?:passwords?|passwort|passwd|passphrase|pwd|contrase[nñ]as?|senhas?"
    r"|(?<!palabra )clave|palavra-passe)[\"'”»*]{0,2}"
    r"(?:\s(?:de|del|do|da|for|of|para)(?:\s\w{1,20}){1,3}?)?\s{0,3}"
    r"(?P<how>[:=]|=>|->|is:?|was|es:?|era|é:?|to|a|para)\s{0,3}"
    r"(?P<quote>[\"'“«`]{0,2})(?P<value>[^\s\"'“”«»`]{4,64})"
)
_PASS: Final = re.compile(
    r"(?i)(?<![a-z])(?:pass|pw)\s{0,2}(?P<how>[:=])\s{0,3}(?P<quote>[\"'“«`]{0,2})"
    r"(?P<value>[^\s\"'“”«»`]{6,64})"
    r"|(?<![a-z])(?:passwords?|contrase[nñ]as?|senhas?|clave)\s{1,3}(?P<how2>)"
    r"(?P<quote2>[\"'“«`]{0,2})(?P<value2>[^\s\"'“”«»`]{6,64})"
)
"""Names that are too common to be believed without a sign, and passwords without a word between."""
_PIN: Final = re.compile(
    r"(?<![A-Za-z])(?:PIN|Pin|pin)\s{0,2}(?:[:=]|is:?|es:?|é:?)\s{0,3}(?P<value>\d{4})(?!\w|[.,]\d)"
)
_UNUSUAL: Final = frozenset("!#$%&*+=?@^~|\\")
"""Signs that words of prose do not hold."""
_ALGORITHMS: Final = re.compile(
    r"(?i)(?:base\d+|sha-?\d+|md\d|utf-?\d+|aes-?\d+|argon\d\w*|pbkdf\d|bcrypt\d*|windows\d*|\d+-?\w+)\b"
)
"""What passwords are made with: words with a number, and no passwords."""
_PASSWORD_WORDS: Final = ("pass", "pwd", "pw", "contrase", "senha", "clave", "palavra-passe", "pin")
_NAMED_WORDS: Final = ("key", "token", "secret", "bearer", "clave", "chave")
_STANDS_FOR: Final = re.compile(
    r"<[^>]*>?$|\{.*\}|\$\{|\$[A-Z_]+$|%[A-Z_]+%$|%\(|[A-Za-z_.]{3,}\($|\*+$|x+$"
    r"|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*(?:\[|\.\w+\(.*)$"
    r"|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*\.(?i:pass(?:word|wd)?|pwd|secret|token)\)*$"
)
"""A placeholder, a variable or a call, as documentation has them, and no password."""
_URL: Final = re.compile(r"(?i)\b[a-z][a-z0-9+.-]{1,15}://[^\s<>\"'`]+")
_USERINFO: Final = re.compile(r"^[^/?#@:]*:[^/?#@]+@")
_PARAMETER: Final = re.compile(
    r"(?i)[?&#;](?:[\w.-]*(?:token|secret|passw(?:or)?d|pwd|senha|signature|api_?key|apikey"
    r"|session(?:id)?|credential)[\w.-]*|key|sig|auth|code|jwt)=(?P<value>[^&#\s]{6,})"
)
_HOOK: Final = re.compile(
    r"(?i)^(?:hooks\.slack\.com/(?:services|workflows)/\w+/|[\w.]*discord(?:app)?\.com/api/webhooks/\d+/"
    r"|[\w.-]*\.office\.com/webhook|api\.telegram\.org/bot\d+:)"
)
"""Addresses that anybody who knows them may write to."""
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
        elif _HOOK.match(rest):
            yield Span(match.start(), end, PersonalKind.URL_SECRET, "hook")
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
        how, quote = match.group("how"), match.group("quote")
        marked = how in (":", "=", "=>", "->") or bool(quote)
        if (span := _password(match, "value", quote, 1 if marked else 2)) is not None:
            yield span
    for match in _PASS.finditer(text):
        how = match.group("how")
        value, quote = ("value", match["quote"]) if how else ("value2", match["quote2"])
        if (
            span := _password(match, value, quote, 1 if how or quote else 2, bare=not how)
        ) is not None:
            yield span
    for match in _PIN.finditer(text):
        yield Span(match.start("value"), match.end("value"), PersonalKind.PASSWORD, "pin")


def _password(
    match: re.Match[str], group: str, quote: str, enough: int, *, bare: bool = False
) -> Span | None:
    """A value as a password: with so many of digits, capitals behind the first letter, and signs.
    One long word with a number is enough after `is`, and never where nothing stands between."""
    value = match.group(group).rstrip(".,;:")
    if not quote:
        opened = match.string[match.start() - 1 : match.start()] == "("
        value = value.rstrip("]})" if opened else "]}")
    inner = value.strip("*.,;:!?()[]{}<>-_")
    digits = any(c.isdigit() for c in value)
    odd = any(not c.isalnum() for c in inner)
    signs = digits + any(c.isupper() for c in value[1:]) + odd
    least = 8 if match.groupdict().get("how") in ("to", "a", "para") else 6
    wordy = digits and any(c.isalpha() for c in value) and len(value) >= least
    if not bare and wordy and not _ALGORITHMS.match(value):
        enough = 1
    if bare and not quote and not (digits and any(c in _UNUSUAL for c in inner)):
        return None
    if len(value) < 4 or signs < enough or _STANDS_FOR.match(value):
        return None
    start = match.start(group)
    return Span(start, start + len(value), PersonalKind.PASSWORD, "named")
