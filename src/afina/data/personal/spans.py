"""What is found in a text: a kind, a rule and a place."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final


class PersonalKind(enum.StrEnum):
    """What a value is. The upper case name stands in placeholders: `<EMAIL_3>`."""

    EMAIL = "email"
    PHONE = "phone"
    CARD = "card"
    IBAN = "iban"
    IP = "ip"
    URL_SECRET = "url_secret"  # noqa: S105
    API_KEY = "api_key"
    PASSWORD = "password"  # noqa: S105  (a kind, no password)
    NIF = "nif"
    NIE = "nie"
    CIF = "cif"
    CURP = "curp"
    RFC = "rfc"
    CLABE = "clabe"
    CPF = "cpf"
    CNPJ = "cnpj"
    NHS = "nhs"
    SSN = "ssn"
    RG = "rg"
    CNH = "cnh"
    TITULO_ELEITOR = "titulo_eleitor"
    PIS = "pis"
    NSS = "nss"
    NISS = "niss"
    CARTAO_CIDADAO = "cartao_cidadao"
    NINO = "nino"


SECRETS: Final = frozenset({PersonalKind.URL_SECRET, PersonalKind.API_KEY, PersonalKind.PASSWORD})
"""Those that open something, rather than name someone."""
ORDER: Final = (
    PersonalKind.URL_SECRET,
    PersonalKind.API_KEY,
    PersonalKind.PASSWORD,
    PersonalKind.EMAIL,
    PersonalKind.IBAN,
    PersonalKind.CLABE,
    PersonalKind.TITULO_ELEITOR,
    PersonalKind.CNH,
    PersonalKind.PIS,
    PersonalKind.NSS,
    PersonalKind.NISS,
    PersonalKind.CARTAO_CIDADAO,
    PersonalKind.CNPJ,
    PersonalKind.CARD,
    PersonalKind.CURP,
    PersonalKind.RFC,
    PersonalKind.NIE,
    PersonalKind.NIF,
    PersonalKind.CIF,
    PersonalKind.CPF,
    PersonalKind.SSN,
    PersonalKind.NHS,
    PersonalKind.NINO,
    PersonalKind.RG,
    PersonalKind.IP,
    PersonalKind.PHONE,
)
"""Where two overlap, the kind that comes first here is kept."""
_RANK: Final = {kind: place for place, kind in enumerate(ORDER)}


@dataclass(frozen=True)
class Span:
    """Characters `start` to `end` of a text."""

    start: int
    end: int
    kind: PersonalKind
    rule: str
    """How it was found, such as `checksum` or `context`."""


NAMED_CARD: Final = "checksum-named"
"""A card's number with a card's word before it: fourteen digits may be a company's too."""


def without_overlaps(spans: Iterable[Span]) -> list[Span]:
    """The spans to keep, by place: what its words name wins, then the stronger kind, then the
    longer one."""
    kept: list[Span] = []
    for span in sorted(spans, key=_strength):
        if all(span.end <= other.start or span.start >= other.end for other in kept):
            kept.append(span)
    return sorted(kept, key=lambda span: span.start)


def _strength(span: Span) -> tuple[bool, int, int, int]:
    return span.rule != NAMED_CARD, _RANK[span.kind], span.start - span.end, span.start
