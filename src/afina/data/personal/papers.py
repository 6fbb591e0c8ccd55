"""Numbers with a checksum or with ranges: cards, accounts, papers of people and companies."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from stdnum import iban, luhn
from stdnum.br import cnpj, cpf
from stdnum.es import cif, dni, nie
from stdnum.exceptions import ValidationError
from stdnum.gb import nhs
from stdnum.iso7064 import mod_97_10
from stdnum.mx import curp, rfc
from stdnum.pt import nif as portuguese_nif

from afina.data.personal.named_papers import find_named_papers
from afina.data.personal.spans import NAMED_CARD, PersonalKind, Span

_CARD: Final = re.compile(r"(?<![\w.+-])(?:\d[ -]?){11,18}\d(?![\w-]|\.\d)")
_CARD_PREFIX: Final = re.compile(
    r"^(?:0604|4|5[0-8]|2(?:2[2-9]|[3-6]|7[01]|720|131)|3[0-9]|6(?:011|4[4-9]|5|2|3|7|04)|1800)"
)
_CARD_LENGTHS: Final = frozenset({12, 13, 14, 15, 16, 19})
_IBAN: Final = re.compile(r"(?<![\w])[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{1,4}){3,8}(?![\w])")
_SMALL_IBAN: Final = re.compile(r"(?<![\w])[a-z]{2}\d{2}(?:[ -]?[0-9]{1,4}){3,8}(?![\w])")
_NIF: Final = re.compile(r"(?<![\w-])\d{1,2}\.?\d{3}\.?\d{3}[ -]?[A-HJ-NP-TV-Z](?![\w])")
_NIE: Final = re.compile(r"(?<![\w-])[XYZ][ -]?\d{7}[ -]?[A-HJ-NP-TV-Z](?![\w])")
_CIF: Final = re.compile(r"(?<![\w-])[A-HJNP-SUVW][ -]?\d{7}[ -]?[0-9A-J](?![\w])")
_CURP: Final = re.compile(r"(?<!\w)[A-Z]{4}\d{6}[HMX][A-Z]{5}[A-Z0-9]\d(?!\w)")
_CURP_WORDS: Final = re.compile(r"(?i)\bCURP\b")
_RFC: Final = re.compile(r"(?<!\w)[A-ZÑ&]{3,4}\d{6}[A-Z0-9]{2}[0-9A-Z](?!\w)")
_RFC_WORDS: Final = re.compile(r"(?i)\bR\.?F\.?C\b")
_ANYBODY: Final = frozenset({"XAXX010101000", "XEXX010101000"})
"""What the Mexican tax office gives those who have none."""
_CLABE: Final = re.compile(r"(?<![\w.+-])(?:\d{18}|\d{3}[ -]\d{3}[ -]\d{11}[ -]\d)(?![\w-]|\.\d)")
_CLABE_WORDS: Final = re.compile(
    r"(?i)\b(?:clabe|cuenta|interbancaria|spei|transfer\w*|dep[oó]sit\w*)\b"
)
_PORTUGUESE_NIF: Final = re.compile(r"(?<![\w.+-])[1235689]\d{2}[ .]?\d{3}[ .]?\d{3}(?![\w-]|\.\d)")
_PORTUGUESE_NIF_WORDS: Final = re.compile(r"(?i)\b(?:nif|nipc|contribuinte)\b")
_SMALL_NIE, _SMALL_NIF, _SMALL_CIF, _SMALL_CURP = (
    re.compile(pattern.pattern, re.I) for pattern in (_NIE, _NIF, _CIF, _CURP)
)
_CARD_WORDS: Final = re.compile(
    r"(?i)\b(?:cards?|visa|mastercard|amex|american express|diners|maestro|tarjetas?|cart[aã]o"
    r"|cart[oõ]es|cr[eé]dito|d[eé]bito|credit|debit|paid|pay|charged?|pagu[eé]i?|pagou|pagado"
    r"|cobr\w+)\b"
)
_CNPJ_WORDS: Final = re.compile(r"(?i)\b(?:cnpj|empresa|companhia|company|raz[aã]o social)\b")
_CPF: Final = re.compile(
    r"(?<![\w.+-])(?:\d{3}\.\d{3}\.\d{3}-?\d{2}|\d{11}|\d{9}-\d{2})(?![\w-]|\.\d)"
)
_SPACED_CPF: Final = re.compile(r"(?<![\w.+-])\d{3} \d{3} \d{3}[ -]?\d{2}(?![\w-]|\.\d)")
_SPACED_CNPJ: Final = re.compile(r"(?<![\w.+-])\d{2} \d{3} \d{3}[ /]\d{4}[ -]?\d{2}(?![\w-]|\.\d)")
_PAPER_WORDS: Final = re.compile(
    r"(?i)\b(?:dni|nif|nie|cif|curp|cpf|cnpj|iban|cuenta|conta|account)\b"
)
_CNPJ: Final = re.compile(
    r"(?<![\w.+-])[0-9A-Z]{2}\.?[0-9A-Z]{3}\.?[0-9A-Z]{3}/?[0-9A-Z]{4}-?\d{2}(?![\w-])"
)
_NHS: Final = re.compile(r"(?<![\w.+-])\d{3}[ -]?\d{3}[ -]?\d{4}(?![\w-]|\.\d)")
_NHS_WORDS: Final = re.compile(r"(?i)\bNHS\b")
_NINO: Final = re.compile(
    r"(?<![\w-])(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]"
    r"(?: \d{2} \d{2} \d{2} |-\d{2}-\d{2}-\d{2}-)[A-D](?![\w-])"
)
"""Britain's National Insurance number, in the groups in which it is written."""
_NAMED_NINO: Final = re.compile(r"(?i)(?<![\w-])[A-Z]{2}(?:[ -]?\d{2}){3}[ -]?[A-D](?![\w-])")
_NINO_WORDS: Final = re.compile(
    r"(?i)\bnational insurance\b|\bNINO\b|\bN\.?I\.?(?: (?:number|no\b)|:| is\b)"
)
_SSN: Final = re.compile(r"(?<![\w.-])(?!000|666|9)\d{3}([- ])(?!00)\d{2}\1(?!0000)\d{4}(?![\w-])")
_SSN_BARE: Final = re.compile(
    r"(?<![\w.+-])(?!000|666|9)\d{3}(?!00)\d{2}(?!0000)\d{4}(?![\w-]|\.\d)"
)
_SSN_WORDS: Final = re.compile(r"(?i)\b(?:ssn|social security)\b")
_BEFORE: Final = 48
"""Characters in front of a number in which its name may stand."""


def find_papers(text: str) -> Iterator[Span]:
    """Numbers of cards, accounts, people and companies in `text`."""
    yield from _cards(text)
    yield from _ibans(text)
    yield from _checked(text, _CNPJ, PersonalKind.CNPJ, cnpj.is_valid)
    yield from _checked(text, _CPF, PersonalKind.CPF, cpf.is_valid)
    yield from _checked(text, _NIE, PersonalKind.NIE, nie.is_valid)
    yield from _checked(text, _NIF, PersonalKind.NIF, _is_nif)
    yield from _checked(text, _CIF, PersonalKind.CIF, cif.is_valid)
    yield from _curps(text)
    yield from _tax_numbers(text)
    for span in _checked(text, _NHS, PersonalKind.NHS, nhs.is_valid):
        if _named(text, span.start, _NHS_WORDS):
            yield span
    yield from _national_insurance(text)
    yield from _social_security(text)
    yield from find_named_papers(text)
    if _PAPER_WORDS.search(text):
        yield from _written_small(text)


def _tax_numbers(text: str) -> Iterator[Span]:
    """Those of Mexico and Portugal, and Mexican accounts: short sums, so most are believed beside
    their name alone."""
    for match in _RFC.finditer(text):
        written = match.group()
        if written in _ANYBODY or not rfc.is_valid(written):
            continue
        if rfc.is_valid(written, validate_check_digits=True):
            yield Span(match.start(), match.end(), PersonalKind.RFC, "checksum")
        elif _named(text, match.start(), _RFC_WORDS):
            yield Span(match.start(), match.end(), PersonalKind.RFC, "context")
    for pattern, kind, valid, words in (
        (_CLABE, PersonalKind.CLABE, _is_clabe, _CLABE_WORDS),
        (_PORTUGUESE_NIF, PersonalKind.NIF, portuguese_nif.is_valid, _PORTUGUESE_NIF_WORDS),
    ):
        for span in _checked(text, pattern, kind, valid):
            if _named(text, span.start, words):
                yield replace(span, rule="checksum-beside-name")


def _is_clabe(written: str) -> bool:
    digits = [int(digit) for digit in re.sub(r"\D", "", written)]
    *first, check = digits
    weights = itertools.cycle((3, 7, 1))
    weighted = sum(digit * next(weights) % 10 for digit in first)
    return (weighted + check) % 10 == 0


def _written_small(text: str) -> Iterator[Span]:
    """Numbers as people type them in haste, in small letters or with spaces: believed beside their
    name alone."""
    for pattern, kind, valid in (
        (_SMALL_IBAN, PersonalKind.IBAN, lambda w: _is_iban(w.upper())),
        (_SPACED_CPF, PersonalKind.CPF, cpf.is_valid),
        (_SPACED_CNPJ, PersonalKind.CNPJ, cnpj.is_valid),
        (_SMALL_NIE, PersonalKind.NIE, nie.is_valid),
        (_SMALL_NIF, PersonalKind.NIF, _is_nif),
        (_SMALL_CIF, PersonalKind.CIF, cif.is_valid),
        (_SMALL_CURP, PersonalKind.CURP, lambda w: _is_curp(w.upper())),
    ):
        for span in _checked(text, pattern, kind, valid):
            around = text[max(0, span.start - _BEFORE) : span.end + _BEFORE // 2]
            if _PAPER_WORDS.search(around):
                yield replace(span, rule="checksum-beside-name")


def _checked(
    text: str, pattern: re.Pattern[str], kind: PersonalKind, valid: Callable[[str], bool]
) -> Iterator[Span]:
    for match in pattern.finditer(text):
        if valid(match.group()):
            yield Span(match.start(), match.end(), kind, "checksum")


def _cards(text: str) -> Iterator[Span]:
    for span in _checked(text, _CARD, PersonalKind.CARD, _is_card):
        before = text[max(0, span.start - _BEFORE) : span.start]
        named = _last(_CARD_WORDS, before) > _last(_CNPJ_WORDS, before)
        yield replace(span, rule=NAMED_CARD) if named else span


def _last(words: re.Pattern[str], before: str) -> int:
    """Where the last of the words ends, or -1."""
    return max((match.end() for match in words.finditer(before)), default=-1)


def _is_card(written: str) -> bool:
    digits = re.sub(r"[ -]", "", written)
    if len(digits) not in _CARD_LENGTHS or not _CARD_PREFIX.match(digits):
        return False
    groups = re.split(r"[ -]", written)
    if len(groups) > 1 and (len(groups) > 6 or min(map(len, groups[:-1])) < 3):
        return False
    return len(set(digits)) > 1 and bool(luhn.is_valid(digits))


def _is_nif(written: str) -> bool:
    digits = re.sub(r"\D", "", written)
    return len(digits) in (7, 8) and bool(dni.is_valid(digits.zfill(8) + written[-1]))


def _curps(text: str) -> Iterator[Span]:
    for match in _CURP.finditer(text):
        if _is_curp(match.group()):
            yield Span(match.start(), match.end(), PersonalKind.CURP, "checksum")
        elif _named(text, match.start(), _CURP_WORDS):
            yield Span(match.start(), match.end(), PersonalKind.CURP, "context")


def _is_curp(written: str) -> bool:
    """Of a possible day and with its check digit; a state outside the list is no acquittal.

    Where something so long sums up, a mistyped state still names the same person.
    """
    try:
        curp.get_birth_date(written)
    except ValidationError:
        return False
    return bool(curp.calc_check_digit(written[:-1]) == written[-1])


def _ibans(text: str) -> Iterator[Span]:
    for match in _IBAN.finditer(text):
        words = re.split(r"([ -])", match.group())
        # A word in capitals may follow an account's number.
        tries = ["".join(words[:end]) for end in range(len(words), 0, -2)]
        found = next((w for w in tries if _is_iban(w)), None)
        if found is None and _sums_up(match.group()):
            found = match.group()
        if found is not None:
            end = match.start() + len(found)
            yield Span(match.start(), end, PersonalKind.IBAN, "checksum")


def _is_iban(written: str) -> bool:
    """Of the length and form that its country has; the country's own check digits apart."""
    return bool(iban.is_valid(re.sub(r"[ -]", "", written), check_country=False))


def _sums_up(written: str) -> bool:
    compact = re.sub(r"[ -]", "", written)
    whole = 15 <= len(compact) <= 34
    return whole and bool(mod_97_10.is_valid(compact[4:] + compact[:4]))


def _national_insurance(text: str) -> Iterator[Span]:
    for match in _NINO.finditer(text):
        yield Span(match.start(), match.end(), PersonalKind.NINO, "form")
    if _NINO_WORDS.search(text):
        for match in _NAMED_NINO.finditer(text):
            if _named(text, match.start(), _NINO_WORDS):
                yield Span(match.start(), match.end(), PersonalKind.NINO, "context")


def _social_security(text: str) -> Iterator[Span]:
    for match in _SSN.finditer(text):
        yield Span(match.start(), match.end(), PersonalKind.SSN, "ranges")
    if _SSN_WORDS.search(text):
        for match in _SSN_BARE.finditer(text):
            if _named(text, match.start(), _SSN_WORDS):
                yield Span(match.start(), match.end(), PersonalKind.SSN, "context")


def _named(text: str, start: int, words: re.Pattern[str]) -> bool:
    return words.search(text[max(0, start - _BEFORE) : start]) is not None
