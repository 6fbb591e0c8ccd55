"""The task of text to SQL: a table and a question become a query, judged by running it.

A query runs in memory, may only read, and is stopped after so many steps of the database. It is
right where it gives what the reference gives on two fillings of the table.
"""

from __future__ import annotations

import functools
import random
import re
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.quality_task import Row, Task, share

STEPS_OF_A_QUERY = 200_000
ROWS_OF_A_TABLE = 40
_MAY = {
    sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE,
}  # fmt: skip
_FENCE = re.compile(r"```(?:sql)?\s*(.*?)```", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True)
class Table:
    """A table with a name column, two columns of categories and two of numbers."""

    name: str
    name_column: str
    categories: tuple[tuple[str, tuple[str, ...]], ...]
    numbers: tuple[str, str]

    def sql(self) -> str:
        columns = [f"{self.name_column} TEXT"]
        columns += [f"{column} TEXT" for column, _ in self.categories]
        columns += [f"{column} INTEGER" for column in self.numbers]
        return f"CREATE TABLE {self.name} ({', '.join(columns)})"

    def fill(self, database: sqlite3.Connection, seed: int) -> None:
        """Rows drawn by seed; no number occurs twice in a column."""
        source = random.Random(f"{self.name}{seed}")
        database.execute(self.sql())
        drawn = [source.sample(range(1, 1000), ROWS_OF_A_TABLE) for _ in self.numbers]
        for place in range(ROWS_OF_A_TABLE):
            values: list[object] = [f"{self.name_column} {place}"]
            values += [source.choice(options) for _, options in self.categories]
            values += [column[place] for column in drawn]
            marks = ", ".join("?" * len(values))
            database.execute(f"INSERT INTO {self.name} VALUES ({marks})", values)


def _table(text: str) -> Table:
    name, name_column, *rest = text.split()
    categories = tuple((c.split(":")[0], tuple(c.split(":")[1].split("|"))) for c in rest[:2])
    return Table(name, name_column, categories, (rest[2], rest[3]))


TRAINED = tuple(map(_table, (
    "claims customer status:open|closed|paid city:Lisbon|Madrid|Porto amount days",
    "employees name department:sales|legal|support country:Spain|Brazil|Chile salary age",
    "books title genre:novel|poetry|history language:English|Spanish|Catalan pages year",
    "flights code airline:Nimbus|Altair|Orion destination:Rome|Paris|Oslo distance price",
    "products product category:toys|food|garden color:red|blue|green price stock",
    "players player team:Lions|Hawks|Wolves position:goalkeeper|defender|striker goals age",
    "orders buyer state:new|sent|returned method:card|cash|transfer total items",
    "hotels hotel city:Faro|Lima|Turin type:beach|city|mountain rooms stars",
    "cars model brand:Vela|Corsa|Lumo fuel:petrol|diesel|electric mileage price",
    "songs song artist:Mira|Duarte|Okoro style:jazz|rock|fado seconds plays",
    "patients patient ward:north|south|east blood:A|B|O weight height",
    "courses course faculty:law|science|arts level:basic|advanced|master hours students",
    "trees tree species:oak|pine|birch park:Central|River|Hill height age",
    "invoices supplier status:paid|late|open currency:EUR|USD|GBP amount tax",
)))  # fmt: skip
HELD_OUT = tuple(map(_table, (
    "policies holder type:home|car|life region:north|south|coast premium years",
    "movies movie director:Vidal|Castro|Lind genre:drama|comedy|western minutes budget",
    "ships ship flag:Malta|Panama|Norway kind:tanker|ferry|yacht length crew",
    "recipes recipe cuisine:Thai|Greek|Peruvian difficulty:easy|medium|hard minutes calories",
    "wines wine grape:merlot|malbec|albarino country:Italy|Chile|Portugal price vintage",
    "repairs mechanic part:engine|brakes|gearbox garage:Alfa|Centro|Norte cost hours",
)))  # fmt: skip


def _questions(t: Table, source: random.Random) -> list[tuple[str, str]]:
    """A question of each kind about a table, with its query."""
    (category, options), (other, _) = source.sample(t.categories, 2)
    value = source.choice(options)
    number, second = source.sample(t.numbers, 2)
    bound = source.randrange(100, 900, 50)
    word, function = source.choice((("average", "AVG"), ("total", "SUM"), ("highest", "MAX"),
                                    ("lowest", "MIN")))  # fmt: skip
    side, sign = source.choice((("above", ">"), ("over", ">"), ("below", "<"), ("under", "<")))
    most, order = source.choice((("highest", "DESC"), ("lowest", "ASC")))
    name, only = t.name_column, f"WHERE {category} = '{value}'"
    return [
        (source.choice((f"How many {t.name} are there?", f"Count all {t.name}.")),
         f"SELECT COUNT(*) FROM {t.name}"),
        (source.choice((f"How many {t.name} have the {category} {value}?",
                        f"Count the {t.name} whose {category} is {value}.")),
         f"SELECT COUNT(*) FROM {t.name} {only}"),
        (source.choice((f"What is the {word} {number} of all {t.name}?",
                        f"Give me the {word} {number} over the {t.name}.")),
         f"SELECT {function}({number}) FROM {t.name}"),
        (source.choice((f"What is the {word} {number} of {t.name} with {category} {value}?",
                        f"For {t.name} whose {category} is {value}, what is the {word} "
                        f"{number}?")),
         f"SELECT {function}({number}) FROM {t.name} {only}"),
        (source.choice((f"List the {name} of {t.name} with {number} {side} {bound}.",
                        f"Which {t.name} have a {number} {side} {bound}? Show the {name}.")),
         f"SELECT {name} FROM {t.name} WHERE {number} {sign} {bound}"),
        (source.choice((f"Which {name} has the {most} {second}?",
                        f"Show the {name} with the {most} {second}.")),
         f"SELECT {name} FROM {t.name} ORDER BY {second} {order} LIMIT 1"),
        (source.choice((f"How many {t.name} are there for each {other}?",
                        f"Count the {t.name} by {other}.")),
         f"SELECT {other}, COUNT(*) FROM {t.name} GROUP BY {other}"),
        (source.choice((f"List the {name} of {t.name} whose {category} is {value}.",
                        f"Which {t.name} have the {category} {value}? Show the {name}.")),
         f"SELECT {name} FROM {t.name} {only}"),
    ]  # fmt: skip


def rows_about(tables: Sequence[Table], source: random.Random, each: int) -> list[Row]:
    """So many questions about each table, in an order drawn from the source."""
    rows = []
    for t in tables:
        for question, query in source.sample(_questions(t, source), each):
            rows.append(Row(f"{t.sql()}\n{question}", query))
    source.shuffle(rows)
    return rows


def text_to_sql() -> Task:
    """70 questions about 14 tables; 36 about six tables that were never seen."""
    source = random.Random(40)
    return Task(
        name="sql",
        rows=tuple(rows_about(TRAINED, source, 5)),
        held_out=tuple(rows_about(HELD_OUT, source, 6)),
        judge=_judge,
        instructions="You are given a table of an SQLite database and a question. Answer with one "
        "SQL query that gives what is asked, and nothing else: no explanation, no comments.",
        system="Write one SQL query.",
        shots=5,
        max_tokens=60,
    )


def _judge(rows: Sequence[Row], answers: Sequence[str]) -> Mapping[str, float]:
    tables = {t.sql(): t for t in HELD_OUT}
    right, runs = [], []
    for row, answer in zip(rows, answers, strict=True):
        table = tables[row.question.split("\n")[0]]
        query = query_of(answer)
        wanted = [run_query(table, row.answer, seed) for seed in (0, 1)]
        given = [run_query(table, query, seed) for seed in (0, 1)]
        right.append(None not in given and given == wanted)
        runs.append(None not in given)
    return {"right result": share(right), "runs": share(runs)}


def query_of(answer: str) -> str:
    """The query of an answer: what stands in its fence, if it has one."""
    fenced = _FENCE.search(answer)
    return (fenced[1] if fenced else answer).strip()


def run_query(table: Table, query: str, seed: int) -> Counter[tuple[object, ...]] | None:
    """The rows of a query in any order; None where it fails, writes, or takes too long."""
    try:
        cursor = _filled(table, seed).execute(query)
        found = cursor.fetchmany(1000)
    except (sqlite3.Error, sqlite3.Warning, ValueError):
        return None
    if cursor.description is None:  # an empty text is no query
        return None
    return Counter(tuple(_rounded(value) for value in row) for row in found)


@functools.cache
def _filled(table: Table, seed: int) -> sqlite3.Connection:
    """A database in memory that can only be read from now on."""
    database = sqlite3.connect(":memory:")
    table.fill(database, seed)
    database.commit()

    def allow(action: int, *_: object) -> int:
        return sqlite3.SQLITE_OK if action in _MAY else sqlite3.SQLITE_DENY

    database.set_authorizer(allow)
    database.set_progress_handler(lambda: 1, STEPS_OF_A_QUERY)
    return database


def _rounded(value: object) -> object:
    return round(value, 6) if isinstance(value, float) else value
