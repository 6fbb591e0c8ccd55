"""Random files for benchmarks/fuzz.py: made from good and bad pieces, then mutated."""

from __future__ import annotations

import functools
import io
import json
import random
import zipfile
from dataclasses import dataclass
from typing import Any

from afina.data.rules.examples import EXAMPLES

NAMES = ("csv", "tsv", "json", "jsonl", "txt", "xlsx", "parquet")
TEXT = [{"text": "a"}]
CALL = [{"functionCall": {"name": "f", "args": {}}}]
BACK = [{"functionResponse": {"name": "f", "response": {"b": 1}}}]
EXPORTS: list[dict[str, Any]] = [
    {
        "systemInstruction": {"parts": TEXT},
        "contents": [
            *({"role": "user", "parts": parts} for parts in (TEXT, BACK)),
            *({"role": "model", "parts": parts} for parts in (CALL, TEXT)),
        ],
    },
    {"system": TEXT, "messages": [{"role": "user", "content": TEXT}]},
    {
        "mapping": {
            role: {
                "message": {
                    "author": {"role": role},
                    "content": {"content_type": "text", "parts": ["a"]},
                },
                "parent": parent,
            }
            for role, parent in (("user", None), ("assistant", "user"))
        },
        "current_node": "assistant",
    },
    {"chat_messages": [{"sender": "human", "text": "a"}, {"sender": "ai", "content": TEXT}]},
    {"input": [{"role": "user", "content": "a"}], "ideal": ["b"]},
]
LINES = [
    *(text.encode() for example in EXAMPLES.values() for text in (example.bad, example.good)),
    b"question,answer", b"'a, ''b'' c','d\ne'",
    b'"a ""quoted"" one","two\nlines"', b"a;b;c", b"\xef\xbb\xbf{}",
    b"\xff\xfe",
    b'{"a": NaN}', b'{"a": 1e999}', b'{"a": "\\ud800"}', b'{"a": 1, "a": 2}', b"[" * 90, b"\x00",
    "{\"a\": \"\u2028 \u0085 é 日本 me@example.com +34 612 345 678\"}".encode(), b"", b" \t",
    b"9" * 4400,
    b'{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}',
    b'{"messages":[{"role":"user","content":"\\u0022a\\\\"},{"role":"assistant","content":"b"}]}',
    b'{"instruction": "a", "input": "", "output": "b"}', b'{"prompt": "a", "completion": " b"}',
    b'{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}',
    b'{"prompt": "a", "chosen": "b", "rejected": "c"}',
    b'{"text": "<|im_start|>user\\na<|im_end|>"}',
    b'{"id": 1, "role": "user", "content": "a"}', b"{'messages': []}", b'{"a": 1},',
    b"[1, 2]", b"null", *(json.dumps(export).encode() for export in EXPORTS),
]  # fmt: skip
SIGNS = [
    b"\n", b"\r", b"\r\n", b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\xc3", b"\x00", b";",
    b"\t", b"<EMAIL_9>", b'""', b"null", b"1e400", b"\xe2\x80\xa8", b"}{", b"},{", b"}\n{",
    b'"role"',
]  # fmt: skip
CELLS = [
    "question", "answer", "id", "", " ", "a", "=1+1", "1,5", "1.234,56", "31.12.2025", 'say "x"',
    "two\nlines", "ünïcödé", "日本", "a;b", "a,b", "a\tb", "-", "@x", "<|im_end|>", "x" * 300,
]  # fmt: skip
HEADERS = (
    ["question", "answer"],
    ["id", "role", "content"],
    ["prompt", "completion"],
    ["", "Frage", "Antwort"],
    ["instruction", "input", "output"],
    ["a", "b", "c"],
    ["a", "a"],
    [""],
)
ENCODINGS = ("utf-8", "utf-8", "utf-8", "utf-8-sig", "cp1252", "latin-1", "utf-16", "utf-16-le")


@dataclass(frozen=True)
class Input:
    """A file. `is_rows`: it is held against the rules of training files too."""

    name: str
    content: bytes
    is_rows: bool


def made(chance: random.Random) -> Input:
    """One random file."""
    kind = chance.random()
    if kind < 0.70:
        return Input(f"f.{chance.choice(NAMES)}", rows(chance), is_rows=True)
    if kind < 0.90:
        return Input(f"f.{chance.choice(NAMES[:5])}", table(chance), is_rows=False)
    if kind < 0.96:
        return Input("f.json", document(chance), is_rows=False)
    if kind < 0.98:
        return Input("f.xlsx", workbook(chance), is_rows=False)
    return Input("f.parquet", mutated(chance, parquet_file(chance.randrange(3))), is_rows=False)


def rows(chance: random.Random) -> bytes:
    """Lines of every kind."""
    lines = chance.choices(LINES, k=chance.randint(0, 6))
    return mutated(chance, chance.choice([b"\n", b"\r\n", b"\r"]).join(lines))


def mutated(chance: random.Random, content: bytes) -> bytes:
    """Some places of it overwritten, cut or added to."""
    changed = bytearray(content)
    for _ in range(chance.choice([0, 0, 1, 2, 5])):
        at = chance.randint(0, len(changed))
        cut = chance.choice([0, 0, 1, 3])
        changed[at : at + cut] = chance.choice(SIGNS)
    return bytes(changed)


def table(chance: random.Random) -> bytes:
    """A delimited table as somebody's program wrote it, in some encoding."""
    sign = chance.choice([",", ";", "\t", "|"])
    end = chance.choice(["\n", "\r\n", "\r"])
    lines = [chance.choice(HEADERS)]
    for _ in range(chance.randint(0, 5)):
        width = len(lines[0]) + chance.choice([0, 0, 0, 1, -1])
        lines.append(chance.choices(CELLS, k=max(0, width)))

    def quoted(cell: str) -> str:
        plain = not any(c in cell for c in f'{sign}"\n') or chance.random() < 0.05
        return cell if plain else '"' + cell.replace('"', '""') + '"'

    text = end.join(sign.join(map(quoted, cells)) for cells in lines)
    raw = text.encode(chance.choice(ENCODINGS), "replace")
    return mutated(chance, raw) if chance.random() < 0.5 else raw


def document(chance: random.Random) -> bytes:
    """A JSON document: rows in a list, alone or under a key."""
    items = b",".join(line for line in chance.choices(LINES, k=3) if line[:1] == b"{")
    whole = chance.choice([b"[%b]", b'{"data": [%b]}', b"%b", b'{"a": 1, "rows": [%b], "n": []}'])
    return mutated(chance, whole % items)


def workbook(chance: random.Random) -> bytes:
    """A workbook, damaged in one of its parts or as an archive."""
    raw = workbook_file(chance.randrange(3))
    if chance.random() < 0.3:
        return mutated(chance, raw)
    archive = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as source, zipfile.ZipFile(archive, "w") as target:
        hurt = chance.choice(source.namelist())
        for name in source.namelist():
            content = source.read(name)
            if name == hurt and chance.random() < 0.1:
                continue
            target.writestr(name, mutated(chance, content) if name == hurt else content)
    return archive.getvalue()


@functools.cache
def workbook_file(number: int) -> bytes:
    """A good workbook."""
    import openpyxl

    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["question", "answer", "when"])
    for place in range(number + 1):
        sheet.append([f"What is {place}?", place, None])
    if number == 2:
        sheet.merge_cells("A2:B2")
        book.create_sheet("second").append(["=1+1"])
    written = io.BytesIO()
    book.save(written)
    return written.getvalue()


@functools.cache
def parquet_file(number: int) -> bytes:
    """A good Parquet file."""
    import pyarrow
    from pyarrow import parquet

    message = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    columns = (
        {"question": ["a", None], "answer": ["b", "c"]},
        {"messages": [message, None, message]},
        {"prompt": [1.5], "completion": [json.dumps(message)]},
    )[number]
    written = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), written)
    return written.getvalue()
