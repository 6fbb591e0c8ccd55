"""Addresses of mail and machines, and telephone numbers."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Final

import phonenumbers

from afina.data.personal.spans import PersonalKind, Span

_EMAIL: Final = re.compile(
    r"(?<![\w.+-])[\w.+%'-]{1,64}@(?:[\w](?:[\w-]{0,61}[\w])?\.)+[^\W\d_]{2,24}(?![\w-])"
)
_SPELLED_EMAIL: Final = re.compile(
    r"(?i)(?<![\w.+-])[\w.+-]{2,64}\s?[\[({]\s?(?:at|arroba)\s?[\])}]\s?[\w-]{2,63}"
    r"(?:\s?(?:\.|[\[({]\s?(?:dot|punto|ponto)\s?[\])}])\s?[a-z]{2,24})+(?![\w-])"
)
_SPOKEN_EMAIL: Final = re.compile(
    r"(?i)(?<![\w.+-])[\w.+-]{2,64}(?: (?:dot|punto|ponto) [\w+-]{1,64}){0,3}"
    r" (?:at|arroba) (?!the |an? )[\w-]{2,63}(?: (?:dot|punto|ponto) [\w-]{2,63}){0,2}?"
    r" (?:dot|punto|ponto) (?:com|org|net|edu|gov|info|io|co|uk|us|es|mx|br|pt)"
    r"(?: (?:dot|punto|ponto) (?:uk|us|es|mx|br|pt))?(?![\w-])"
)
_SPELLED_AT: Final = re.compile(
    r"(?i)[\[({]\s?(?:at|arroba)\s?[\])}]| (?:at|arroba) [\w-]{2,63} (?:dot|punto|ponto) "
)
_IPV4: Final = re.compile(r"(?<![\w.-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)")
_VERSION_BEFORE: Final = re.compile(
    r"(?i)(?:\bv|version|versión|versão|release|build|section|sección|seção|§|firmware|kernel|driver"
    r"|\bart(?:\.|[íi]culos?|igos?|icles?)|cl[áa]usulas?|clauses?|cap[íi]tulos?|chapters?|apartados?"
    r"|\b(?:steps?|pasos?|passos?|rules?|reglas?|regras?|items?|[íi]tems?|itens)"
    r"|\b(?:(?:up|down)(?:dat|grad)ed?|actuali[zc]\w+|atualiz\w+)"
    r"(?: (?:to|a la|para a|a|para))?)\s*$"
)
_NOBODY: Final = frozenset({"0.0.0.0", "127.0.0.1", "255.255.255.255"})  # noqa: S104
_IPV6: Final = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])")
_PHONE: Final = re.compile(
    r"(?:(?<![\w.,@#/$€£:-])|(?<=\":))(?P<plus>\+|00)?\(?\+?\d[\d ().-]{5,20}\d"
    r"(?:\s?(?:x|ext\.?|extension|ramal)\s?\d{1,6})?(?![\w€%-]|[.,:/]\d)"
)
_EXTENSION: Final = re.compile(r"(?i)\s?(?:x|ext\.?|extension|ramal)\s?\d{1,6}$")
_PHONE_WORDS: Final = re.compile(
    r"(?i)(?:\b(?:phones?|tel|telephones?|t(?:el)?f(?:n?o)?|tl[fn]o?|call|called|calling|mobiles?|cell?s?|fax|text|dial"
    r"|whatsapp|reach|ring|sms|number is|tel[eé]fonos?|m[oó]vil(?:es)?|celular(?:es)?|ll[aá]m\w*"
    r"|fijo|marc(?:a|o|ar|ad|as|ando|aron|ação)|marqu(?:e|en)|telefones?|telem[oó]ve(?:l|is)"
    r"|lig(?:a|o|ar|ou|ue|uem|uei|ando|amos|ação|ações)|fones?|contact\w*|contat\w*|zap)\b"
    r"|\bm(?:i|eu) n[uú]mero(?: (?:es|é)\b|:))"
)
_NOT_PHONE_WORDS: Final = re.compile(
    r"(?i)\b(?:isbn|issn|order|invoice|ticket|ref|reference|id|sku|part|article|case|account"
    r"|pedido|factura|fatura|referencia|referência|protocolo|expediente|serial|model|no\.|nr|n[º°]"
    r"|doi|pmid|version|between|from|cep|zip(?: code)?|c[oó]digo postal|c\.?p\.?|tracking"
    r"|seguimiento|rastreio|incidencia|p[oó]liza|ap[oó]lice|policy"
    r"|(?:customer|client|member|membership|booking|contract) (?:number|no\.?)"
    r"|n[uú]mero d[eoa] (?:cliente|s[oó]cio|contrat[ot]|reserva))"
    r"[\s.:#º°-]*(?:number|n[uú]mero)?[\s.:#º°-]*(?:(?:is|was|es|era|é)\b)?[\s.:#º°-]*$"
)
_NUMBER: Final = re.compile(
    r"^\d+\.\d+$|^\d{3}-\d{2}-\d{4}$"  # a fraction; the form of an SSN, which has its own rule
    r"|^\(?(?:1[5-9]|20)\d\d\)?[ ]?[-/ ][ ]?\(?(?:1[5-9]|20)?\d\d\)?$"  # years
    r"|^(?:\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/. ]\d{1,2}[-/. ]\d{2,4})(?:[ T-]+\d.*)?$"
    r"|^\d{1,2}([. ])\d{3}\1\d{3}$"  # millions
)
_OLD_MEXICAN: Final = re.compile(r"^521(?=\d{10}$)")
"""Mobile numbers had a 1 behind the country until 2019, and people write it still."""
_REGIONS: Final = ("US", "ES", "MX", "BR", "GB", "PT")
_BEFORE: Final = 40


def may_spell_email(text: str) -> bool:
    """Whether an address may stand there with its at sign in words."""
    return _SPELLED_AT.search(text) is not None


def find_contacts(text: str) -> Iterator[Span]:
    """Mail addresses, IP addresses and telephone numbers in `text`."""
    if "@" in text:
        for match in _EMAIL.finditer(text):
            yield Span(match.start(), match.end(), PersonalKind.EMAIL, "address")
    if may_spell_email(text):
        for match in _SPELLED_EMAIL.finditer(text):
            yield Span(match.start(), match.end(), PersonalKind.EMAIL, "spelled")
        for match in _SPOKEN_EMAIL.finditer(text):
            yield Span(match.start(), match.end(), PersonalKind.EMAIL, "spoken")
    if "." in text:
        yield from _ipv4(text)
    if ":" in text:
        yield from _ipv6(text)
    yield from _phones(text)


def _ipv4(text: str) -> Iterator[Span]:
    for match in _IPV4.finditer(text):
        written = match.group()
        if _VERSION_BEFORE.search(text[max(0, match.start() - 16) : match.start()]):
            continue
        if written not in _NOBODY and _is_address(written):
            yield Span(match.start(), match.end(), PersonalKind.IP, "address")


def _ipv6(text: str) -> Iterator[Span]:
    for match in _IPV6.finditer(text):
        written = match.group()
        if len(written.replace(":", "")) >= 4 and _is_address(written):
            yield Span(match.start(), match.end(), PersonalKind.IP, "address")


def _is_address(written: str) -> bool:
    try:
        ipaddress.ip_address(written)
    except ValueError:
        return False
    return True


def _phones(text: str) -> Iterator[Span]:
    for match in _PHONE.finditer(text):
        found = match.group()
        written = _balanced(found)
        start = match.start() + (len(found) - len(written) if found.endswith(written) else 0)
        rule = _phone_rule(text, start, written)
        if rule is not None:
            yield Span(start, start + len(written), PersonalKind.PHONE, rule)


def _balanced(written: str) -> str:
    """Without a bracket that opens or closes nothing."""
    if written.count("(") > written.count(")") and written.startswith("("):
        return written[1:]
    return written


def _phone_rule(text: str, start: int, written: str) -> str | None:
    """Why it is a telephone number, or None."""
    number = _EXTENSION.sub("", written)
    digits = re.sub(r"\D", "", number)
    if not 7 <= len(digits) <= 15 or _NUMBER.match(number):
        return None
    before = text[max(0, start - _BEFORE) : start]
    if _NOT_PHONE_WORDS.search(before) or len(set(digits)) < 3:
        return None
    named = _PHONE_WORDS.search(before) is not None
    if number.lstrip("(").startswith(("+", "00")):
        return "international" if named or _is_valid(_international(number), None) else None
    separated = re.search(r"[() .-]", number) is not None
    if named and len(digits) >= 8 and _groups_fit(number):
        return "context"
    if separated and _groups_fit(number) and _looks_national(number, digits):
        return "national-form"
    return None


def _international(number: str) -> str:
    digits = re.sub(r"\D", "", number)
    digits = digits[2:] if number.lstrip("(").startswith("00") else digits
    return "+" + _OLD_MEXICAN.sub("52", digits)


def _groups_fit(number: str) -> bool:
    """Groups as people write them: no long row of single digits, not many groups."""
    groups = [group for group in re.split(r"\D+", number) if group]
    return len(groups) <= 6 and sum(len(group) == 1 for group in groups) <= 1


_FORMS: Final = re.compile(
    r"^(?:1[ .-])?(?:\(\d{3}\) ?|\d{3}[.-])\d{3}[.-]\d{4}$"  # North America
    r"|^(?:\(?0?\d{2}\)?[ -])9?\d{4}[ -]\d{4}$"  # Brazil
    r"|^[6789]\d{2}[ .-]\d{3}[ .-]\d{3}$|^[6789]\d{2}[ .-]\d{2}[ .-]\d{2}[ .-]\d{2}$"  # Spain
    r"|^(?:\(\d{3}\)|\d{3}[- ])\d{3}[- ]\d{4}$|^1-\d{3}-\d{3}-\d{4}$"  # Mexico
    r"|^\(?0\d{2,4}\)? \d{3,4} ?\d{3,4}$"  # Great Britain
)


def _looks_national(number: str, digits: str) -> bool:
    if _FORMS.match(number):
        return True
    groups = len(re.findall(r"\d+", number))
    return (
        groups > 2
        and len(digits) in (9, 10, 11)
        and any(_is_valid(number, region) for region in _REGIONS)
    )


def _is_valid(number: str, region: str | None) -> bool:
    try:
        parsed = phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException:
        return False
    if region is None:
        return phonenumbers.is_possible_number(parsed)
    return phonenumbers.is_valid_number(parsed)
