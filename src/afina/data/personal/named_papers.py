"""Papers whose numbers look like any other number: believed where their name stands in front of
them, and their check digits, where they have any, sum up.

Brazil: RG, CNH, título de eleitor, PIS (PASEP, NIS, NIT). Mexico and Spain: NSS, which are two
kinds of numbers under one name. Portugal: NISS and the cartão de cidadão.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from stdnum import luhn
from stdnum.pt import cc

from afina.data.personal.spans import PersonalKind, Span

_BEFORE: Final = 48
"""Characters in front of a number in which its name may stand."""
_AFTER: Final = r"(?![\w-]|\.\d)"
_FRONT: Final = r"(?<![\w.+/-])"
_RG: Final = r"(?<![\w.+-])\d{1,2}\.?\d{3}\.?\d{3}[ -]?[\dXx]" + _AFTER
_ELEVEN: Final = rf"{_FRONT}\d{{11}}{_AFTER}"
_PIS: Final = (
    rf"{_FRONT}(?:\d{{11}}|\d{{3}}\.\d{{5}}\.\d{{2}}-?\d|\d{{3}} \d{{5}} \d{{2}} \d){_AFTER}"
)
_TITULO: Final = rf"{_FRONT}\d{{4}}[ .]?\d{{4}}[ .]?\d{{4}}{_AFTER}"
_MEXICAN_NSS: Final = (
    rf"{_FRONT}(?:\d{{11}}|\d{{2}}[ -]\d{{2}}[ -]\d{{2}}[ -]\d{{4}}[ -]\d){_AFTER}"
)
_SPANISH_NSS: Final = rf"{_FRONT}(?:\d{{12}}|\d{{2}}([ /-])\d{{8}}\1\d{{2}}){_AFTER}"
_CC: Final = r"(?<![\w.+-])\d{8}[ -]?\d[ -]?[A-Za-z]{2}\d(?!\w)"
_SPANISH_NAMES: Final = (
    r"nss|nuss|imss|naf|seguro social|seguridad social|n[uú]mero de afiliaci[oó]n"
)


@dataclass(frozen=True)
class _Paper:
    kind: PersonalKind
    names: str
    form: re.Pattern[str]
    valid: Callable[[str], bool] | None
    """None where there is no sum to hold it against."""


def _weighed(digits: Sequence[int], weights: Sequence[int]) -> int:
    return sum(digit * weight for digit, weight in zip(digits, weights, strict=True))


def _digits(written: str) -> list[int]:
    return [int(one) for one in written if one.isdigit()]


def is_cnh(written: str) -> bool:
    """Eleven digits, the last two of them check digits that hang together."""
    digits = _digits(written)
    first = _weighed(digits[:9], range(9, 0, -1)) % 11
    carried = 2 if first >= 10 else 0
    second = _weighed(digits[:9], range(1, 10)) % 11
    second = 0 if second >= 10 else (second - carried) % 11
    return len(set(digits)) > 1 and digits[9:] == [0 if first >= 10 else first, second % 10]


def is_titulo(written: str) -> bool:
    """Eight digits, the state (01 to 28) and two check digits."""
    digits = _digits(written)
    state = digits[8:10]
    if not 1 <= state[0] * 10 + state[1] <= 28:
        return False
    small = state in ([0, 1], [0, 2])  # São Paulo and Minas Gerais write 1 for a rest of 0
    first = _check(_weighed(digits[:8], range(2, 10)), small=small)
    second = _check(_weighed([*state, first], (7, 8, 9)), small=small)
    return digits[10:] == [first, second]


def _check(total: int, *, small: bool) -> int:
    rest = total % 11
    if rest == 10:
        return 0
    return 1 if rest == 0 and small else rest


def is_pis(written: str) -> bool:
    """Ten digits and a check digit."""
    digits = _digits(written)
    rest = 11 - _weighed(digits[:10], (3, 2, 9, 8, 7, 6, 5, 4, 3, 2)) % 11
    return len(set(digits)) > 1 and digits[10] == (0 if rest >= 10 else rest)


def is_mexican_nss(written: str) -> bool:
    """Eleven digits by Luhn's sum."""
    digits = "".join(map(str, _digits(written)))
    return len(set(digits)) > 1 and bool(luhn.is_valid(digits))


def is_spanish_nss(written: str) -> bool:
    """A province, eight digits, and the rest of both by 97."""
    digits = "".join(map(str, _digits(written)))
    province, number, check = digits[:2], digits[2:10], int(digits[10:])
    # A number below ten million is weighed without its first nought; programs forget that.
    wholes = {province + number, province + number.removeprefix("0")}
    return 1 <= int(province) <= 66 and check in {int(whole) % 97 for whole in wholes}


def is_niss(written: str) -> bool:
    """Ten digits, the first 1 or 2, and a check digit."""
    digits = _digits(written)
    total = _weighed(digits[:10], (29, 23, 19, 17, 13, 11, 7, 5, 3, 2))
    return digits[0] in (1, 2) and digits[10] == 9 - total % 10


def is_cartao_cidadao(written: str) -> bool:
    """Eight digits, a check digit, two letters, and a sum over all of them."""
    return bool(cc.is_valid(re.sub(r"[ -]", "", written)))


def _paper(
    kind: PersonalKind, names: str, form: str, valid: Callable[[str], bool] | None
) -> _Paper:
    return _Paper(kind, names, re.compile(form), valid)


_K: Final = PersonalKind
_PAPERS: Final = (
    _paper(
        _K.RG,
        r"rg|registro geral|identidade(?= ?:)"
        r"|(?:carteira|c[eé]dula|documento|doc\.?) de identidade",
        _RG,
        None,
    ),
    _paper(
        _K.CNH,
        r"cnh|(?:carteira (?:nacional )?de )?habilita[cç][aã]o|carteira de motorista",
        _ELEVEN,
        is_cnh,
    ),
    _paper(
        _K.TITULO_ELEITOR,
        r"t[ií]tulo(?: de eleitor| eleitoral)?|eleitor(?:al)?",
        _TITULO,
        is_titulo,
    ),
    _paper(_K.PIS, r"pis(?:[/-]pasep)?|pasep|nis|nit", _PIS, is_pis),
    _paper(_K.NSS, _SPANISH_NAMES, _MEXICAN_NSS, is_mexican_nss),
    _paper(_K.NSS, _SPANISH_NAMES, _SPANISH_NSS, is_spanish_nss),
    _paper(_K.NISS, r"niss|seguran[cç]a social", _ELEVEN, is_niss),
    _paper(
        _K.CARTAO_CIDADAO,
        r"cart[aã]o (?:de |do )?cidad[aã]o|cc|c\.c\.|cidad[aã]o|identifica[cç][aã]o civil",
        _CC,
        is_cartao_cidadao,
    ),
)
_OTHERS: Final = r"cpf|cnpj|nif|nie|dni|cif|curp|rfc|nhs|ssn|iban|tel|telefone|tel[eé]fono|celular"
_NAMES: Final = re.compile(
    r"(?i)(?<!\w)(?:"
    + "|".join(
        f"(?P<n{number}>{names})"
        for number, names in enumerate(dict.fromkeys(paper.names for paper in _PAPERS))
    )
    + rf"|{_OTHERS})(?!\w)"
)
_GROUP_OF: Final = {
    names: f"n{number}"
    for number, names in enumerate(dict.fromkeys(paper.names for paper in _PAPERS))
}


def find_named_papers(text: str) -> Iterator[Span]:
    """Numbers of papers whose name is the last one in front of them."""
    if not any(match.lastgroup for match in _NAMES.finditer(text)):
        return
    for paper in _PAPERS:
        rule = "context" if paper.valid is None else "checksum-beside-name"
        for match in paper.form.finditer(text):
            if _is_called(text, match.start(), _GROUP_OF[paper.names]) and (
                paper.valid is None or paper.valid(match.group())
            ):
                yield Span(match.start(), match.end(), paper.kind, rule)


def _is_called(text: str, start: int, group: str) -> bool:
    called = None
    for match in _NAMES.finditer(text, max(0, start - _BEFORE), start):
        called = match
    return called is not None and called.lastgroup == group
