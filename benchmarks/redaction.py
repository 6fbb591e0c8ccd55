"""How well personal data is found: Faker's people in four locales, and prose without any.

    python -m benchmarks.redaction [sentences a kind and locale]

A value counts as found where exactly its characters are found as its kind. Prose is this
repository's own documentation and the licences of what is installed, with numbers of all sorts.
"""

from __future__ import annotations

import random
import re
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faker import Faker

from afina.data.personal.detect import find_personal
from afina.data.personal.named_papers import (
    is_cartao_cidadao,
    is_cnh,
    is_niss,
    is_pis,
    is_titulo,
)
from afina.data.personal.spans import PersonalKind

ROOT = Path(__file__).parent.parent
LOCALES = ("en_US", "es_ES", "es_MX", "pt_BR")
K = PersonalKind
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

SENTENCES = {
    "en": {
        K.EMAIL: ["Please write to {} today.", "My address is {}.", "Contact: {}", "{} wrote to us."],
        K.PHONE: ["Call me at {} after six.", "Phone: {}", "My number is {}, thanks.", "You reach us on {}."],
        K.CARD: ["I paid with {} yesterday.", "Card number: {}.", "Charge {} please."],
        K.IBAN: ["Send it to {}.", "IBAN: {}", "My account is {} at the bank."],
        K.IP: ["The request came from {}.", "Server {} is down.", "IP: {}"],
        K.URL_SECRET: ["Open {} now.", "See {}.", "The link is {} for you."],
        K.API_KEY: ["Use {} for the API.", "My key is {}.", "export KEY={}"],
        K.PASSWORD: ["My password is {}", "password: {}", "Password = {}", "the password is \"{}\""],
        K.SSN: ["My SSN is {}.", "Social security number: {}", "She gave {} to the clerk."],
        K.NHS: ["NHS number {}.", "The patient's NHS no. is {}", "NHS: {}"],
        K.NINO: ["My National Insurance number is {}.", "NINO: {}", "NI number {} please."],
    },
    "es": {
        K.EMAIL: ["Escríbame a {} hoy.", "Mi correo es {}.", "Correo: {}", "{} nos escribió."],
        K.PHONE: ["Llámeme al {} por la tarde.", "Teléfono: {}", "Mi móvil es el {}, gracias.", "Mi celular: {}."],
        K.CARD: ["Pagué con {} ayer.", "Tarjeta: {}.", "Cobre de {} por favor."],
        K.IBAN: ["Envíelo a {}.", "IBAN: {}", "Mi cuenta es {} en el banco."],
        K.IP: ["La petición vino de {}.", "El servidor {} no responde.", "IP: {}"],
        K.URL_SECRET: ["Abra {} ahora.", "Vea {}.", "El enlace es {} para usted."],
        K.API_KEY: ["Use {} para la API.", "Mi clave de API es {}.", "export KEY={}"],
        K.PASSWORD: ["Mi contraseña es {}", "contraseña: {}", "Clave = {}"],
        K.NIF: ["Mi NIF es {}.", "DNI: {}", "Firmado por {} en Madrid."],
        K.NIE: ["Mi NIE es {}.", "NIE: {}", "El titular {} firma."],
        K.CIF: ["El CIF es {}.", "CIF: {}", "La empresa {} factura."],
        K.CURP: ["Mi CURP es {}.", "CURP: {}", "Registrado como {} en México."],
        K.RFC: ["Mi RFC es {}.", "RFC: {}", "Facture al RFC {} por favor."],
        K.NSS: ["Mi NSS es {}.", "Número de seguridad social: {}", "Afiliado al IMSS con el {}"],
        K.CLABE: ["Mi CLABE es {}.", "Deposite a la cuenta {}.", "CLABE interbancaria: {}"],
    },
    "pt": {
        K.EMAIL: ["Escreva para {} hoje.", "Meu e-mail é {}.", "E-mail: {}", "{} escreveu."],
        K.PHONE: ["Ligue para {} à tarde.", "Telefone: {}", "Meu celular é {}, obrigado.", "Me chame no {} no WhatsApp."],
        K.CARD: ["Paguei com {} ontem.", "Cartão: {}.", "Cobre de {} por favor."],
        K.IBAN: ["Envie para {}.", "IBAN: {}", "Minha conta é {} no banco."],
        K.IP: ["O pedido veio de {}.", "O servidor {} caiu.", "IP: {}"],
        K.URL_SECRET: ["Abra {} agora.", "Veja {}.", "O link é {} para você."],
        K.API_KEY: ["Use {} na API.", "Minha chave de API é {}.", "export KEY={}"],
        K.PASSWORD: ["Minha senha é {}", "senha: {}", "Senha = {}"],
        K.CPF: ["Meu CPF é {}.", "CPF: {}", "Assinado por {} em Recife."],
        K.RG: ["Meu RG é {}.", "RG: {}", "Carteira de identidade nº {}"],
        K.CNH: ["Minha CNH é {}.", "CNH: {}", "Carteira de habilitação {}"],
        K.TITULO_ELEITOR: ["Meu título de eleitor é {}.", "Título: {}"],
        K.PIS: ["Meu PIS é {}.", "PIS/PASEP: {}", "O NIT do segurado é {}"],
        K.NISS: ["O meu NISS é {}.", "NISS: {}", "Segurança Social n.º {}"],
        K.CARTAO_CIDADAO: ["Cartão de cidadão {}", "CC: {}", "O meu cartão de cidadão é o {}."],
        K.CNPJ: ["O CNPJ é {}.", "CNPJ: {}", "A empresa {} fatura."],
    },
}  # fmt: skip


@dataclass(frozen=True)
class Labelled:
    """A sentence that holds one value of a kind."""

    text: str
    kind: PersonalKind
    value: str


def value(kind: PersonalKind, fake: Faker, chance: random.Random) -> str:
    """A value as people of the locale write it."""
    makers: dict[PersonalKind, Any] = {
        K.EMAIL: lambda: fake.email(),
        K.PHONE: lambda: fake.phone_number(),
        K.CARD: lambda: card(fake, chance),
        K.IBAN: lambda: iban(fake, chance),
        K.IP: lambda: fake.ipv4() if chance.random() < 0.7 else fake.ipv6(),
        K.URL_SECRET: lambda: url(fake, chance),
        K.API_KEY: lambda: key(chance),
        K.PASSWORD: lambda: fake.password(length=chance.randint(8, 14)),
        K.SSN: lambda: fake.ssn(),
        K.NIF: lambda: fake.nif(),
        K.NIE: lambda: fake.nie(),
        K.CIF: lambda: fake.cif(),
        K.CURP: lambda: fake.curp(),
        K.RFC: lambda: fake.rfc(),
        K.CLABE: lambda: clabe(fake, chance),
        K.CPF: lambda: fake.cpf(),
        K.CNPJ: lambda: fake.cnpj(),
        K.NHS: lambda: nhs(chance),
        K.NINO: lambda: nino(chance),
        K.RG: lambda: rg(fake, chance),
        K.NSS: lambda: fake.nuss() if hasattr(fake, "nuss") else fake.ssn(),
        **{kind: lambda form=form: summed(chance, *form) for kind, form in SUMMED.items()},
    }
    return str(makers[kind]())


def card(fake: Faker, chance: random.Random) -> str:
    digits = fake.credit_card_number()
    if len(digits) == 16 and chance.random() < 0.5:
        return " ".join(digits[at : at + 4] for at in range(0, 16, 4))
    return str(digits)


def iban(fake: Faker, chance: random.Random) -> str:
    whole = fake.iban()
    if chance.random() < 0.5:
        return " ".join(whole[at : at + 4] for at in range(0, len(whole), 4))
    return str(whole)


def clabe(fake: Faker, chance: random.Random) -> str:
    whole = str(fake.clabe())
    if chance.random() < 0.5:
        return f"{whole[:3]} {whole[3:6]} {whole[6:17]} {whole[17]}"
    return whole


def url(fake: Faker, chance: random.Random) -> str:
    token = word(chance, 24)
    host = fake.domain_name()
    return chance.choice(
        [
            f"https://{host}/reset?token={token}",
            f"https://{fake.user_name()}:{word(chance, 10)}@{host}/a",
            f"https://{host}/f?id=3&api_key={token}",
        ]
    )


def key(chance: random.Random) -> str:
    return chance.choice(
        [
            "sk-proj-" + word(chance, 40),
            "AKIA" + "".join(chance.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", k=16)),
            "ghp_" + word(chance, 36),
            "xoxb-" + word(chance, 24),
            "AIza" + word(chance, 35),
            "hf_" + word(chance, 34),
        ]
    )


def nhs(chance: random.Random) -> str:
    while True:
        nine = "".join(chance.choices("0123456789", k=9))
        check = 11 - sum(int(d) * (10 - at) for at, d in enumerate(nine)) % 11
        if check != 10:
            whole = nine + str(check % 11)
            return f"{whole[:3]} {whole[3:6]} {whole[6:]}" if chance.random() < 0.7 else whole


def nino(chance: random.Random) -> str:
    digits = chance.choices("0123456789", k=6)
    first = "".join(chance.choices("ACEHJLMPRSWXY", k=2))
    gap = chance.choice(["", " "])
    pairs = ["".join(digits[at : at + 2]) for at in (0, 2, 4)]
    return gap.join([first, *pairs, chance.choice("ABCD")])


SUMMED: dict[PersonalKind, Any] = {
    K.CNH: (("###########",), is_cnh),
    K.TITULO_ELEITOR: (("############", "#### #### ####"), is_titulo),
    K.PIS: (("###########", "###.#####.##-#"), is_pis),
    K.NISS: (("###########",), is_niss),
    K.CARTAO_CIDADAO: (("######## # ZZ#", "#########ZZ#"), is_cartao_cidadao),
}


def summed(chance: random.Random, forms: tuple[str, ...], valid: Callable[[str], bool]) -> str:
    """A number of one of the forms, drawn until its check digits sum up."""
    form = chance.choice(forms)
    while True:
        made = re.sub("#", lambda _: chance.choice("0123456789"), form)
        if valid(made):
            return made


def rg(fake: Faker, chance: random.Random) -> str:
    bare = str(fake.rg())
    return bare if chance.random() < 0.5 else f"{bare[:2]}.{bare[2:5]}.{bare[5:8]}-{bare[8:]}"


def word(chance: random.Random, length: int) -> str:
    return "".join(chance.choices(LETTERS, k=length))


def labelled(locale: str, count: int, seed: int) -> Iterator[Labelled]:
    """`count` sentences of each kind that the locale has."""
    fake, chance = Faker(locale), random.Random(seed)
    fake.seed_instance(seed)
    # Some of Faker's providers draw from the one generator of all instances.
    Faker.seed(seed)
    language = locale[:2]
    for kind, sentences in SENTENCES[language].items():
        if (locale, kind) in ABSENT:
            continue
        for _ in range(count):
            made = value(kind, fake, chance)
            yield Labelled(chance.choice(sentences).format(made), kind, made)


ABSENT = {
    *(("es_ES", kind) for kind in (K.CURP, K.RFC, K.CLABE)),
    *(("es_MX", kind) for kind in (K.NIF, K.NIE, K.CIF)),
}


ABOUT_NUMBERS = ("phonenumbers", "psutil", "faker")
"""Packages whose pages show telephone numbers, addresses and papers on purpose."""


@dataclass
class Score:
    """Exact places found, missed, and found wrongly."""

    right: int = 0
    missed: int = 0
    wrong: int = 0

    @property
    def f1(self) -> float:
        return 2 * self.right / max(1, 2 * self.right + self.missed + self.wrong)


def measure(count: int, seed: int = 1) -> tuple[dict[PersonalKind, Score], list[Labelled]]:
    """Scores by kind over all locales, and the sentences that went wrong."""
    scores = {kind: Score() for kind in PersonalKind}
    failed = []
    for locale in LOCALES:
        for case in labelled(locale, count, seed):
            found = [(s.kind, case.text[s.start : s.end]) for s in find_personal(case.text)]
            if (case.kind, case.value) in found:
                scores[case.kind].right += 1
            else:
                scores[case.kind].missed += 1
                failed.append(case)
            for kind, text in found:
                if (kind, text) != (case.kind, case.value):
                    scores[kind].wrong += 1
                    failed.append(case)
    return scores, failed


def prose() -> Iterator[tuple[str, str]]:
    """Paragraphs of documentation and licences, with where they are from."""
    paths = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    packages = Path(sysconfig.get_paths()["purelib"])
    paths += sorted(packages.glob("*.dist-info/licenses/*"))[:80]
    paths += sorted(packages.glob("*.dist-info/METADATA"))[:80]
    for path in paths:
        if path.is_file() and not path.parent.name.startswith(ABOUT_NUMBERS):
            for part in re.split(r"\n\s*\n", path.read_text("utf-8", errors="replace")):
                yield f"{path.parent.name}/{path.name}", part


def alarms() -> tuple[int, Counter[PersonalKind], list[str]]:
    """Words of prose, what was found in them, and the places."""
    words, found, places = 0, Counter[PersonalKind](), []
    for where, text in prose():
        words += len(text.split())
        for span in find_personal(text):
            found[span.kind] += 1
            places.append(f"{span.kind} {where}: {text[span.start : span.end]!r}")
    return words, found, places


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    begun = time.perf_counter()
    scores, failed = measure(count)
    for kind, score in scores.items():
        print(
            f"{kind:12} F1 {score.f1:.4f}  {score.right} right {score.missed} missed"
            f" {score.wrong} wrong"
        )
    if "-v" in sys.argv:
        for case in failed[:80]:
            got = [(s.kind.value, case.text[s.start : s.end]) for s in find_personal(case.text)]
            print(f"  {case.kind} {case.text!r} -> {got}")
    words, found, places = alarms()
    real = {K.EMAIL, K.URL_SECRET}  # prose does hold real addresses
    wrong = sum(count for kind, count in found.items() if kind not in real)
    print(
        f"prose: {words:,} words, {dict(found)}; {wrong / words * 10_000:.2f} alarms / 10,000 words"
    )
    if "-v" in sys.argv:
        print("\n".join(place for place in places if not place.startswith("email")))
    print(f"{time.perf_counter() - begun:.1f} s")


if __name__ == "__main__":
    main()
