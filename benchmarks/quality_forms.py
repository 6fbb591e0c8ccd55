"""The task of strict JSON: a message about an invoice becomes an object with five fields."""

from __future__ import annotations

import datetime
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.quality_task import Row, Task, share

FIELDS: dict[str, type | tuple[type, ...]] = {
    "vendor": str,
    "number": str,
    "date": str,
    "total": (int, float),
    "currency": str,
}
NAMES = (
    "Alder", "Brightwater", "Castell", "Dorado", "Elmsworth", "Farol", "Granada", "Hollis",
    "Ibérica", "Jasper", "Kestrel", "Lumen", "Marisma", "Northgate", "Oliveira", "Pomar",
    "Quayside", "Ribeira", "Sable", "Tejo", "Umber", "Vega", "Westfield", "Yarrow", "Zafra",
)  # fmt: skip
TRADES = (
    "Plumbing", "Glass", "Motors", "Roofing", "Tools", "Electric", "Paper", "Catering",
    "Transportes", "Muebles", "Pinturas", "Seguros", "Carpintaria", "Papelaria", "Software",
)  # fmt: skip
FORMS = (" Ltd", " SL", " Lda", " & Sons", " Inc", "")
MONTHS = {
    "en": ("January", "February", "March", "April", "May", "June", "July", "August", "September",
            "October", "November", "December"),
    "es": ("enero", "febrero", "marzo", "abril", "mayo", "junio", "julio", "agosto",
            "septiembre", "octubre", "noviembre", "diciembre"),
    "pt": ("janeiro", "fevereiro", "março", "abril", "maio", "junho", "julho", "agosto",
            "setembro", "outubro", "novembro", "dezembro"),
}  # fmt: skip
TEXTS = {
    "en": (
        "Please find attached invoice {number} from {vendor}, dated {date}. The amount due is "
        "{total}.",
        "{vendor} sent us a bill of {total} on {date}. Its number is {number}.",
        "Hi, can you pay {vendor}? Invoice {number}, {total}, issued {date}. Thanks!",
        "INVOICE {number} | {vendor} | Date: {date} | Total: {total}",
        "On {date} we received the invoice {number}: {total} for the repair by {vendor}.",
        "Reminder: {total} to {vendor} is still open. The invoice of {date} has the number "
        "{number}.",
        "We still owe {vendor} {total} (their reference {number}, {date}).",
    ),
    "es": (
        "Adjunto la factura {number} de {vendor} con fecha {date}. El importe es de {total}.",
        "{vendor} nos cobró {total} el {date}; la factura es la {number}.",
        "Hay que pagar {total} a {vendor}. Factura {number}, emitida el {date}.",
    ),
    "pt": (
        "Segue a factura {number} de {vendor}, de {date}, no valor de {total}.",
        "A {vendor} cobrou {total} em {date}; o número da factura é {number}.",
        "Falta pagar {total} à {vendor}. Factura {number}, emitida em {date}.",
    ),
}


@dataclass(frozen=True)
class Invoice:
    """What a message tells."""

    vendor: str
    number: str
    date: datetime.date
    cents: int
    currency: str

    def to_json(self) -> str:
        total = self.cents / 100
        value = {
            "vendor": self.vendor,
            "number": self.number,
            "date": self.date.isoformat(),
            "total": int(total) if total.is_integer() else total,
            "currency": self.currency,
        }
        return json.dumps(value, ensure_ascii=False)

    def told(self, source: random.Random, language: str) -> str:
        """A message about it."""
        return source.choice(TEXTS[language]).format(
            vendor=self.vendor,
            number=self.number,
            date=self._date(source, language),
            total=self._total(source, language),
        )

    def _date(self, source: random.Random, language: str) -> str:
        day, month, year = self.date.day, MONTHS[language][self.date.month - 1], self.date.year
        if language != "en":
            long = f"{day} de {month} de {year}"
            return source.choice((long, long, self.date.strftime("%d/%m/%Y")))
        return source.choice((f"{day} {month} {year}", f"{month} {day}, {year}", str(self.date)))

    def _total(self, source: random.Random, language: str) -> str:
        text = f"{self.cents / 100:,.2f}"
        if language != "en":
            text = text.translate(str.maketrans(",.", ".,"))
            signs = {"EUR": f"{text} €", "USD": f"{text} USD", "GBP": f"{text} GBP"}
            return signs[self.currency]
        signs = {"EUR": f"€{text}", "USD": f"${text}", "GBP": f"£{text}"}
        return source.choice((signs[self.currency], f"{self.currency} {text}"))


def extraction() -> Task:
    """60 messages in three languages; 36 others about vendors that were never seen."""
    source = random.Random(30)
    vendors = [f"{name} {trade}" for name in NAMES for trade in TRADES]
    source.shuffle(vendors)
    languages = ["en"] * 4 + ["es"] * 2 + ["pt"] * 2
    rows = []
    for place, vendor in enumerate(vendors[:96]):
        language = languages[place % len(languages)]
        invoice = _invoice(source, vendor)
        rows.append(Row(invoice.told(source, language), invoice.to_json()))
    return Task(
        name="extraction",
        rows=tuple(rows[:60]),
        held_out=tuple(rows[60:]),
        judge=_judge,
        instructions="Read the message and answer with one JSON object and nothing else. Its keys "
        "are vendor (the company), number (of the invoice), date (YYYY-MM-DD), total (a number "
        "with a point before the cents) and currency (EUR, USD or GBP).",
        system="Extract the invoice as JSON.",
        shots=4,
        max_tokens=90,
    )


def _invoice(source: random.Random, vendor: str) -> Invoice:
    marks = (f"{source.randint(1000, 99999)}", f"F-{source.randint(100, 9999)}",
             f"{source.choice('ABCR')}{source.randint(10, 99)}/{source.randint(100, 999)}",
             f"INV-{source.randint(1000, 9999)}")  # fmt: skip
    first = datetime.date(2024, 1, 1)
    return Invoice(
        vendor=vendor + source.choice(FORMS),
        number=source.choice(marks),
        date=first + datetime.timedelta(days=source.randrange(900)),
        cents=source.choice((1, 1, 100)) * source.randint(2000, 99999),
        currency=source.choice(("EUR", "EUR", "USD", "GBP")),
    )


def _judge(rows: Sequence[Row], answers: Sequence[str]) -> Mapping[str, float]:
    parsed = [_parsed(answer) for answer in answers]
    hits = said = 0
    for row, value in zip(rows, parsed, strict=True):
        wanted = json.loads(row.answer)
        given = value if isinstance(value, dict) else {}
        said += len(given)
        hits += sum(_same(given.get(name), wanted[name]) for name in FIELDS)
    return {
        "field F1": 2 * hits / (said + len(FIELDS) * len(rows)),
        "parses": share([value is not None for value in parsed]),
        "schema valid": share([is_valid(value) for value in parsed]),
    }


def _parsed(answer: str) -> Any:
    try:
        return json.loads(answer)
    except (ValueError, RecursionError):
        return None


def _same(given: object, wanted: object) -> bool:
    # True would equal 1
    return not isinstance(given, bool) and given == wanted


def is_valid(value: object) -> bool:
    """Whether it is an object with the five fields, no others, each of its type."""
    if not isinstance(value, dict) or set(value) != set(FIELDS):
        return False
    right = all(isinstance(value[name], kind) for name, kind in FIELDS.items())
    return right and not isinstance(value["total"], bool) and _is_day(value["date"])


def _is_day(text: str) -> bool:
    try:
        return datetime.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False
