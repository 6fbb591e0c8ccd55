"""Personal data: found by pattern and checksum, replaced, recorded, and put back with a key."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afina.data.personal.detect import find_personal, kinds_named
from afina.data.personal.redaction import (
    Placeholders,
    redact_file,
    redact_text,
    restore_file,
    restore_text,
)
from afina.data.personal.spans import PersonalKind
from afina.data.personal.vault import lock, make_key, read_key, unlock
from afina.errors import DataUnreadable, InvalidRequest

FOUND = [
    ("email", "Write to ana.perez+x@correo.example.com.", "ana.perez+x@correo.example.com"),
    ("phone", "Call +34 612 345 678 today", "+34 612 345 678"),
    ("phone", "Call (212) 555-0187 x12 now", "(212) 555-0187 x12"),
    ("phone", "Meu celular: 11 91234-5678", "11 91234-5678"),
    ("card", "card 4111 1111 1111 1111.", "4111 1111 1111 1111"),
    ("iban", "IBAN ES91 2100 0418 4502 0005 1332 GRACIAS", "ES91 2100 0418 4502 0005 1332"),
    ("ip", "from 192.0.2.17.", "192.0.2.17"),
    ("ip", "at 2001:db8::8a2e:370:7334", "2001:db8::8a2e:370:7334"),
    ("url_secret", "see https://a.example/x?id=1&token=abc123def", "https://a.example/x?id=1&token=abc123def"),
    ("url_secret", "db postgres://bob:hunter2@db/x", "postgres://bob:hunter2@db/x"),
    ("api_key", "key AKIAIOSFODNN7EXAMPLE!", "AKIAIOSFODNN7EXAMPLE"),
    ("api_key", 'api_key = "9f8a7b6c5d4e3f2a1b0c"', "9f8a7b6c5d4e3f2a1b0c"),
    ("password", "La contraseña es Tr3s$Gatos.", "Tr3s$Gatos"),
    ("nif", "NIF 12345678Z.", "12345678Z"),
    ("nie", "NIE X1234567L.", "X1234567L"),
    ("cif", "CIF A58818501.", "A58818501"),
    ("curp", "CURP BOXW310820HNERXN09", "BOXW310820HNERXN09"),
    ("curp", "mi CURP: GODE561231HDFRRN04", "GODE561231HDFRRN04"),
    ("rfc", "Facture a GODE561231GR8.", "GODE561231GR8"),
    ("rfc", "R.F.C. VACJ880326XXX", "VACJ880326XXX"),
    ("clabe", "CLABE 032180000118359719", "032180000118359719"),
    ("clabe", "Deposite a la cuenta 032 180 00011835971 9", "032 180 00011835971 9"),
    ("nif", "o meu NIF é 501 442 600", "501 442 600"),
    ("phone", "WhatsApp del cliente en Puebla +52 1 55 1234 5678", "+52 1 55 1234 5678"),
    ("phone", "anota +5215512345678", "+5215512345678"),
    ("phone", "Cel. 55 1234 5678", "55 1234 5678"),
    ("phone", "sus teléfonos: 612345678", "612345678"),
    ("cpf", "CPF 529.982.247-25.", "529.982.247-25"),
    ("cnpj", "CNPJ 11.444.777/0001-61", "11.444.777/0001-61"),
    ("nhs", "NHS number 943 476 5919.", "943 476 5919"),
    ("ssn", "SSN 536-90-4399.", "536-90-4399"),
    ("card", "I paid with 36217466913595 today", "36217466913595"),
    ("card", "Paguei à empresa com o cartão 36217466913595.", "36217466913595"),
    ("cnpj", "Cobrança da empresa, CNPJ 36217466913595", "36217466913595"),
    ("cnpj", "the number 36217466913595", "36217466913595"),
    ("phone", "Llámame al +34633460528.", "+34633460528"),
    ("cpf", "meu CPF é 34633460528", "34633460528"),
    ("email", "jane.doe [at] example [dot] com, please", "jane.doe [at] example [dot] com"),
    ("email", "ana (arroba) correo.es", "ana (arroba) correo.es"),
    ("phone", "WhatsApp (11) 98765-4321 ramal 12", "(11) 98765-4321 ramal 12"),
    ("iban", "mi cuenta: es91 2100 0418 4502 0005 1332", "es91 2100 0418 4502 0005 1332"),
    ("nif", "mi dni es 12345678z", "12345678z"),
    ("nie", "nie x1234567l", "x1234567l"),
    ("curp", "curp: boxw310820hnerxn09", "boxw310820hnerxn09"),
    ("cpf", "529 982 247 25 é o meu CPF", "529 982 247 25"),
    ("cpf", "meu cpf é 529.982.24725", "529.982.24725"),
    ("cnpj", "cnpj: 11 444 777/0001-61", "11 444 777/0001-61"),
    ("ip", "[2001:db8::1]:8080", "2001:db8::1"),
    ("api_key", "shpat_1234567890abcdef1234567890abcdef", "shpat_1234567890abcdef1234567890abcdef"),
    ("api_key", "key-3ax6xnjp29jd6fds4gc373sgvjxteol0", "key-3ax6xnjp29jd6fds4gc373sgvjxteol0"),
    ("api_key", "bot 123456789:AAF-abcdefghijklmnopqrstuvwxyz12", "123456789:AAF-abcdefghijklmnopqrstuvwxyz12"),
    ("password", "Use the password Tr0ub4dor&3 to log in", "Tr0ub4dor&3"),
    ("password", "user: bob, pass: x7Kq!92", "x7Kq!92"),
    ("password", 'password "qwerty99"', "qwerty99"),
    ("password", "My wifi password is sunflower42.", "sunflower42"),
    ("password", "(password: abc12345)", "abc12345"),
    ("password", "My PIN is 4821.", "4821"),
    ("rg", "RG 12.345.678-9, expedido em SP", "12.345.678-9"),
    ("rg", "carteira de identidade nº 45678912X", "45678912X"),
    ("cnh", "Minha CNH é 58316794534.", "58316794534"),
    ("cnh", "carteira nacional de habilitação: 02650306461", "02650306461"),
    ("titulo_eleitor", "título de eleitor 0043 5687 0906", "0043 5687 0906"),
    ("titulo_eleitor", "Título: 004356870906", "004356870906"),
    ("pis", "PIS/PASEP 120.56412.54-5", "120.56412.54-5"),
    ("pis", "NIT: 12056412545", "12056412545"),
    ("nss", "Mi NSS del IMSS es 41152464172", "41152464172"),
    ("nss", "seguro social: 41-15-24-6417-2", "41-15-24-6417-2"),
    ("nss", "n.º de la Seguridad Social 28/12345678/40", "28/12345678/40"),
    ("nss", "NUSS 370862039996", "370862039996"),
    ("niss", "O meu NISS é 11234567892", "11234567892"),
    ("cartao_cidadao", "Cartão de Cidadão 00000000 0 ZZ4", "00000000 0 ZZ4"),
    ("cartao_cidadao", "CC: 00000000 0ZZ4", "00000000 0ZZ4"),
    ("nino", "My National Insurance number is QQ 12 34 56 C.", "QQ 12 34 56 C"),
    ("nino", "NI number: ab123456c", "ab123456c"),
    ("nino", "he gave AB 12 34 56 C as his", "AB 12 34 56 C"),
    ("phone", "Tfno: 91-5551234", "91-5551234"),
    ("phone", "Mi fijo es el 982251436", "982251436"),
    ("phone", "Mi número: 612345678", "612345678"),
    ("phone", "Teléfono del cliente: 612345678", "612345678"),
    ("phone", "Faça uma ligação para 11987654321", "11987654321"),
    ("email", "es maria arroba gmail punto com", "maria arroba gmail punto com"),
    ("email", "reach jane dot doe at example dot com", "jane dot doe at example dot com"),
    ("password", "La contraseña del wifi es Gato_Negro77.", "Gato_Negro77"),
    ("password", "My password is hunter2.", "hunter2"),
    ("cpf", "CNH e CPF: 529.982.247-25", "529.982.247-25"),
    ("phone", "RG na pasta. Telefone: 11 91234-5678", "11 91234-5678"),
    ("url_secret", "https://hooks.slack.com/services/T0/B00000000/XXXX", "https://hooks.slack.com/services/T0/B00000000/XXXX"),
]  # fmt: skip
CLEAN = [
    "In 2024-05-17 we sold 1,234,567 units at 12.50 each, 3 to 4 a day from 09:30 to 17:45.",
    "Version 1.2.3.4 of the firmware; section 10.20.30.40 explains.",
    "ISBN 978-3-16-148410-0, DOI 10.1000/182, order number 20231105123.",
    "The years 1914-1918 and 1939 - 1945; pages 120-135 and 200.300.",
    "Your password is required, and the password is wrong. La contraseña es incorrecta.",
    "password: <your password>, password=os.getenv('X'), token: str, secret: $SECRET",
    "NIF 12345678A is not one, nor is CPF 529.982.247-26, nor IBAN ES91 2100 0418 4502 0005 1333.",
    "RFC XAXX010101000 is anybody's. A CURP has eighteen places, an RFC twelve or thirteen.",
    "VACJ880326XXX is a model, 032180000118359719 a serial number, 501442600 a part.",
    "Celular da loja, CEP 01310-100; Tel. y código postal 06700-123.",
    "SSN 000-12-3456 and 666-12-3456 and 912-12-3456 were never given out.",
    "https://example.com/page?id=12345&lang=es and @nobody and a@b",
    "The password is base64 encoded or SHA256, password OAuth2, a password Windows10 asks for.",
    "Pass: the ball (at) half time, 12345678z and x1234567l, PIN: 560001, key-value-pairs.",
    "CNH 58316794535, PIS 12056412546, título 104356870907, NISS 11234567893 are mistyped.",
    "NSS 41152464173 and 28/12345678/41 and CC 00000000 0 ZZ5 sum up to nothing.",
    "12.345.678-9 copies, part 58316794534, order 12056412545, 11234567892 of them.",
    "Part 00000000 0 ZZ4 of 28/12345678/40; the PIS and the RG, each of 1.234.567 people.",
    "My order number is 4155550132. Call us, customer number 41555501, póliza 612345678.",
    "Light travels 299 792 458 m a second. In March 2023 12345678 units; marca 12.345.678 puntos.",
    "Artículo 5.1.2.3, cláusula 7.2.1.4, step 1.2.3.4; upgrade to 6.1.0.3, atualize para 6.1.0.4.",
    "Código: password = os.environ['DB_PASS'], self.password, connect(password=args.password)",
    "password: z.string().min(8), password = getpass.getpass(). Palabra clave: H2O2.",
    "We look at the dot com boom, and at noon dot the i. Product AB123456C, RFC 2616, AB-12-34-56-C9.",
    "0.9999628 or 1365519115.0 or 1895.22/1013 or 12:30:45 or 2+2=4",
]  # fmt: skip


@pytest.mark.parametrize(("kind", "text", "value"), FOUND)
def test_a_value_is_found_exactly_and_as_its_kind(kind: str, text: str, value: str) -> None:
    assert [(s.kind.value, text[s.start : s.end]) for s in find_personal(text)] == [(kind, value)]


def test_each_kind_has_an_example() -> None:
    assert {kind for kind, _, _ in FOUND} == set(PersonalKind)


@pytest.mark.parametrize("text", CLEAN)
def test_prose_with_numbers_raises_no_alarm(text: str) -> None:
    assert [(s.kind, text[s.start : s.end]) for s in find_personal(text)] == []


def test_the_same_value_gets_the_same_placeholder() -> None:
    known = Placeholders()
    text, found = redact_text("a@b.example, c@d.example and A@B.example", known)
    assert text == "<EMAIL_1>, <EMAIL_2> and <EMAIL_1>"
    assert len(found) == 3
    assert redact_text("again c@d.example", known)[0] == "again <EMAIL_2>"
    assert known.counts() == {"email": 2}


def chat(*texts: str, **more: Any) -> str:
    return json.dumps({"messages": [{"role": "user", "content": text} for text in texts], **more})


def test_a_file_keeps_its_lines_and_the_audit_never_says_a_value(tmp_path: Path) -> None:
    call = {
        "function": {"name": "f", "arguments": '{"phone": 2125550187, "n": 3, "to": "a@b.example"}'}
    }
    parts = [{"type": "text", "text": "NIF 12345678Z"}]
    lines = [
        chat("plain"),
        "",
        "{not json a@b.example",
        chat("write to a@b.example", "I am c@d.example"),
        json.dumps({"messages": [{"role": "user", "content": parts}, {"tool_calls": [call]}]}),
    ]
    path, target, audit = tmp_path / "f", tmp_path / "out", tmp_path / "audit"
    path.write_text("\n".join(lines), encoding="utf-8")
    report, _ = redact_file(path, target, audit=audit)
    written = target.read_text(encoding="utf-8").split("\n")
    assert written[:3] == [*lines[:2], "{not json <EMAIL_1>"]
    assert [m["content"] for m in json.loads(written[3])["messages"]] == [
        "write to <EMAIL_1>",
        "I am <EMAIL_2>",
    ]
    last = json.loads(written[4])["messages"]
    assert last[0]["content"][0]["text"] == "NIF <NIF_1>"
    arguments = json.loads(last[1]["tool_calls"][0]["function"]["arguments"])
    assert arguments == {"phone": "<PHONE_1>", "n": 3, "to": "<EMAIL_1>"}
    records = [json.loads(line) for line in audit.read_text().splitlines()]
    assert records[0]["field"] == ""
    assert records[1] == {
        "line": 4, "field": "messages[0].content", "kind": "email", "rule": "address",
        "placeholder": "<EMAIL_1>",
    }  # fmt: skip
    assert len(records) == sum(report.places.values()) == 6
    for value in ("example", "12345678", "2125550187"):
        assert value not in audit.read_text()
    assert (report.rows, report.rows_changed) == (4, 3)
    assert dict(report.values) == {"email": 2, "nif": 1, "phone": 1}


@pytest.mark.parametrize(
    ("key", "value", "written"),
    [
        ("telefono", "612345678", "<PHONE_1>"),
        ("movil", 612345678, "<PHONE_1>"),
        ("customerPhone", 2125550187, "<PHONE_1>"),
        ("celular_cliente", "11987654321", "<PHONE_1>"),
        ("password", "hunter2xyz", "<PASSWORD_1>"),
        ("cpf", 52998224725, "<CPF_1>"),
        ("order_id", 612345678, 612345678),
        ("importe", "612345678", "612345678"),
        ("text", "612345678", "612345678"),
        ("phone", "none", "none"),
        ("phone", True, True),
    ],
)
def test_the_name_of_a_field_says_what_stands_in_it(
    key: str, value: Any, written: Any, tmp_path: Path
) -> None:
    """In the arguments of a call, in a list there, and in an item that graders read."""
    arguments = json.dumps({key: value, "all": {key: [value]}})
    call = {"function": {"name": "f", "arguments": arguments}}
    rows = [
        {"messages": [{"role": "assistant", "tool_calls": [call]}]},
        {"messages": [{"role": "user", "content": "q"}], "item": {key: value}},
    ]
    path, target = tmp_path / "f", tmp_path / "out"
    path.write_text("\n".join(map(json.dumps, rows)))
    redact_file(path, target)
    first, second = map(json.loads, target.read_text().splitlines())
    found = json.loads(first["messages"][0]["tool_calls"][0]["function"]["arguments"])
    assert found == {key: written, "all": {key: [written]}}
    assert second["item"] == {key: written}


def test_the_name_of_a_field_that_is_somebodys_is_taken_out_and_comes_back(
    tmp_path: Path,
) -> None:
    """In arguments, in what a tool gave, in an item; the audit names no such field."""
    held = {"ana@b.example": {"nota": "llamar al 612 34 56 78"}, "529.982.247-25": {"cpf": None}}
    call = {"function": {"name": "f", "arguments": json.dumps(held)}}
    answer = {"role": "tool", "content": json.dumps(held)}
    row = {"messages": [{"role": "assistant", "tool_calls": [call]}, answer], "item": held}
    path, target, audit, back = (tmp_path / name for name in ("f", "out", "audit", "back"))
    path.write_text(json.dumps(row) + "\n")
    report, names = redact_file(path, target, audit=audit, keep_values=True)
    assert dict(report.places) == {"email": 3, "phone": 3, "cpf": 3}
    for file in (target, audit):
        for value in ("ana@", "529.982", "612 34"):
            assert value not in file.read_text()
    found = json.loads(target.read_text())
    assert set(found["item"]) == {"<EMAIL_1>", "<CPF_1>"}
    assert json.loads(found["messages"][1]["content"]) == found["item"]
    fields = {json.loads(line)["field"] for line in audit.read_text().splitlines()}
    assert {"item.?", "item.?.nota", "messages[1].content.?"} <= fields
    restore_file(target, back, names.values)
    assert json.loads(back.read_text()) == row


def test_no_field_is_lost_where_two_names_are_spellings_of_one(tmp_path: Path) -> None:
    path, target = tmp_path / "f", tmp_path / "out"
    path.write_text(json.dumps({"messages": [], "item": {"a@b.example": 1, "A@B.example": 2}}))
    redact_file(path, target)
    assert sorted(json.loads(target.read_text())["item"].values()) == [1, 2]


def test_what_a_tool_gave_stays_json(tmp_path: Path) -> None:
    path, target = tmp_path / "f", tmp_path / "out"
    rows = ('{"telefono": 612345678, "n": 3}', '[{"movil": 612345678}]', "phone 612345678")
    messages = [{"role": "tool", "content": content} for content in rows]
    path.write_text(json.dumps({"messages": messages}))
    redact_file(path, target)
    first, second, third = (m["content"] for m in json.loads(target.read_text())["messages"])
    assert json.loads(first) == {"telefono": "<PHONE_1>", "n": 3}
    assert json.loads(second) == [{"movil": "<PHONE_1>"}]
    assert third == "phone <PHONE_1>"


def test_what_is_not_personal_in_json_in_a_text_stays_as_it_was_written(tmp_path: Path) -> None:
    path, target = tmp_path / "f", tmp_path / "out"
    given = ('{"mail":"a@b.example","total":12.50,"n":[1e3,7]}', '{"m": "a@b.example", "t": 0.10}')
    tools = [{"role": "tool", "tool_call_id": "c", "content": text} for text in given]
    path.write_text(json.dumps({"messages": tools}), encoding="utf-8")
    redact_file(path, target)
    after = [message["content"] for message in json.loads(target.read_text("utf-8"))["messages"]]
    assert after == [text.replace("a@b.example", "<EMAIL_1>") for text in given]


def test_a_number_of_json_in_a_text_is_found_by_its_key() -> None:
    text, _ = redact_text('{"telefono":612345678,"hora":"12:345678"}', Placeholders())
    assert text == '{"telefono":<PHONE_1>,"hora":"12:345678"}'


def test_placeholders_that_a_file_has_already_are_not_given_out_again(tmp_path: Path) -> None:
    path, target = tmp_path / "f", tmp_path / "out"
    path.write_text(chat("ask <EMAIL_7> or a@b.example"))
    redact_file(path, target)
    assert "<EMAIL_8>" in target.read_text()


def test_only_the_kinds_that_are_asked_for_are_taken_out(tmp_path: Path) -> None:
    path, target = tmp_path / "f", tmp_path / "out"
    path.write_text(chat("a@b.example, 12345678Z"))
    redact_file(path, target, kinds=kinds_named(["nif"]))
    assert "a@b.example, <NIF_1>" in target.read_text()
    with pytest.raises(InvalidRequest, match="no kind of personal data called 'names'"):
        kinds_named(["names"])


def test_a_file_is_restored_with_its_key_and_with_no_other(tmp_path: Path) -> None:
    path, target, back = tmp_path / "f", tmp_path / "out", tmp_path / "back"
    path.write_text(chat('my password is "s3cr3t!x"', "a@b.example") + "\n")
    _, known = redact_file(path, target, keep_values=True)
    key = make_key(tmp_path / "key")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert make_key(tmp_path / "key") == key == read_key(tmp_path / "key")
    box = lock(known.values, key)
    assert b"s3cr3t" not in box
    assert restore_file(target, back, unlock(box, key)) == 1
    assert json.loads(back.read_text()) == json.loads(path.read_text())
    assert restore_text("<EMAIL_99>", unlock(box, key)) == "<EMAIL_99>"
    for wrong in (lock({}, bytes(32)), box[:-1] + bytes([box[-1] ^ 1]), b""):
        with pytest.raises(DataUnreadable, match="does not open"):
            unlock(wrong, key)
    (tmp_path / "bad").write_text("zz")
    with pytest.raises(DataUnreadable, match="no key"):
        read_key(tmp_path / "bad")


@settings(max_examples=150, deadline=None)
@given(text=st.text(st.sampled_from("ab @.:/-+()=é0123456789<>_EMAIL"), max_size=60))
def test_spans_are_in_order_and_apart_whatever_the_text(text: str) -> None:
    spans = find_personal(text)
    assert all(a.end <= b.start for a, b in itertools.pairwise(spans))
    assert all(0 <= s.start < s.end <= len(text) for s in spans)
    again, _ = redact_text(text, Placeholders())
    assert isinstance(again, str)


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
def test_lines_that_are_no_objects_are_redacted_as_text(encoding: str, tmp_path: Path) -> None:
    source, target = tmp_path / "f", tmp_path / "out"
    lines = ["José,ana@example.com", '["ana@example.com"]', '{"a": "ana@example.com"']
    source.write_bytes("\n".join(lines).encode(encoding))
    report, _ = redact_file(source, target, audit=tmp_path / "audit")
    after = target.read_bytes().decode(encoding).splitlines()
    assert after == [line.replace("ana@example.com", "<EMAIL_1>") for line in lines]
    assert (report.rows, report.rows_changed, report.as_text, report.unread) == (3, 3, 2, 0)
    assert len((tmp_path / "audit").read_text().splitlines()) == 3


def test_what_is_escaped_in_a_list_or_a_string_is_found(tmp_path: Path) -> None:
    lines = [
        '["ana\\u0040example.com", {"a": "\\u00e9 ana@example.com"}]',
        '"\\u0061na@example.com"',
    ]
    (tmp_path / "f").write_text("\n".join(lines))
    report, _ = redact_file(tmp_path / "f", tmp_path / "out")
    assert [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()] == [
        ["<EMAIL_1>", {"a": "é <EMAIL_1>"}],
        "<EMAIL_1>",
    ]
    assert (report.rows_changed, report.as_text) == (2, 0)


def test_lines_that_are_no_text_are_counted_as_unread(tmp_path: Path) -> None:
    source = tmp_path / "f"
    source.write_bytes(b'{"a": "b"}\n' + "ana@example.com\n".encode("utf-16-le"))
    report, _ = redact_file(source, tmp_path / "out")
    assert (report.rows, report.unread, report.first_unread) == (3, 2, 2)


def test_half_a_character_stays_where_it_is(tmp_path: Path) -> None:
    source, target = tmp_path / "f", tmp_path / "out"
    lines = ['{"a": "\\ud83d"}', '{"a": "\\ud83d ana@example.com"}']
    source.write_text("\n".join(lines))
    redact_file(source, target)
    after = target.read_text().splitlines()
    assert after == [lines[0], '{"a": "\\ud83d <EMAIL_1>"}']
