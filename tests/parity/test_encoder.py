"""The encoder and the moderation head as they ship: the same vectors alone and in company, and
verdicts that nobody would argue about. Needs the folder that `afina models pull` fetches."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from afina.cli.encoders import pull_encoder
from afina.data.moderation.categories import CATEGORIES
from afina.domain.encoders import MOST_TOKENS, WIDTH
from afina.model.encoder import Encoder
from afina.serving.local_moderation import OwnBackend
from afina.serving.network_protocol import Embed, Embedded
from afina.serving.networks import Networks
from afina.settings import Settings

FOLDER = Path(__file__).parent.parent.parent / ".afina"
TEXTS = [
    "how much protein per day",
    "El perro de San Roque no tiene rabo.",
    "Não sei o que fazer.",
    "a much longer sentence about the weather, the sea, the harbour and the ships in it " * 9,
]


@pytest.fixture(scope="module")
def folder() -> Path:
    return pull_encoder(Settings(data=FOLDER))


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Encoder:
    return Encoder(folder, torch.float32)


def test_what_a_lower_layer_gave_stands_behind_the_last_ones_mean(encoder: Encoder) -> None:
    ids = encoder.tokenizer.ids([f"query: {text}" for text in TEXTS])
    both = encoder.pool_ids(ids, beside=(8,)).pooled
    assert torch.equal(both[:, :WIDTH], encoder.pool_ids(ids).pooled)
    assert both.shape == (len(TEXTS), 2 * WIDTH)
    assert not torch.allclose(both[:, :WIDTH], both[:, WIDTH:])


def test_a_vector_does_not_depend_on_its_company(encoder: Encoder) -> None:
    ids = encoder.tokenizer.ids([f"query: {text}" for text in TEXTS])
    together = encoder.unit_ids(ids)
    assert together.shape == (len(TEXTS), WIDTH)
    for row, one in zip(together, ids, strict=True):
        assert float(row @ encoder.unit_ids([one])[0]) == pytest.approx(1.0, abs=1e-5)


def test_sentences_of_one_meaning_are_nearer_than_others(encoder: Encoder) -> None:
    same = ["The cat sleeps on the sofa.", "El gato duerme en el sofá.", "O gato dorme no sofá."]
    pooled = encoder.pool([*same, "The invoice must be paid by Friday."]).pooled
    unit = torch.nn.functional.normalize(pooled, dim=-1)
    near = unit @ unit.T
    assert min(near[0, 1], near[0, 2], near[1, 2]) > near[:3, 3].max()


def test_long_texts_and_odd_characters_are_read(encoder: Encoder) -> None:
    found = encoder.pool(["word " * 2000, "", "\ud800\x00\u200b", "ﬁ"])
    assert found.tokens[0] > 2000
    assert bool(torch.isfinite(found.pooled).all())


def scores(backend: OwnBackend, texts: list[str]) -> list[list[float]]:
    return [row for row, _ in backend.judge(texts)]


def test_plain_threats_are_flagged_and_plain_questions_are_not(folder: Path) -> None:
    backend = OwnBackend(folder)
    threat = scores(backend, ["I will kill you", "Te voy a matar", "Vou te matar"])
    plain = scores(backend, ["What is the capital of Peru?", "Gracias por tu ayuda.", "Bom dia!"])
    place = CATEGORIES.index("harassment/threatening")
    assert all(row[place] > 0.5 for row in threat)
    assert all(max(row) < 0.5 for row in plain)


def test_one_sentence_in_a_long_text_is_found(folder: Path) -> None:
    calm = "The library opens at nine and closes at six. " * 30
    (first, tokens), (second, more) = OwnBackend(folder).judge(
        [calm, f"{calm} I will kill you tonight, traitor. {calm}"]
    )
    assert max(first) < 0.5 < max(second)
    assert 0 < 2 * tokens < more


def test_ids_of_another_tokenizer_are_told_from_its_own(encoder: Encoder) -> None:
    texts = [
        *TEXTS,
        "def f(x):\n    return 'a'",
        "日本語のテキスト",
        "🚀 ﬁn ½",
        "a",
        "  many   spaces ",
    ]
    ids = encoder.tokenizer.ids(texts)
    assert encoder.tokenizer.own(ids) == [True] * len(texts)
    strange = [[one + 1 for one in ids[3]], [0, *ids[0]]]
    assert encoder.tokenizer.own(strange) == [False] * len(strange)


def test_a_long_text_gives_way_to_answers_between_its_windows(
    encoder: Encoder, folder: Path
) -> None:
    text = "The ship lay in the harbour and waited for the tide. " * 200
    at_once: list[object] = []

    async def embedded() -> Embedded:
        async def once(_: str, load: Callable[[], object]) -> object:
            return load()

        def post(act: Callable[[], object]) -> None:
            at_once.append(act())

        networks = Networks(Settings(data=FOLDER), post, once, torch.float32)
        return await networks._embedded(Embed(texts=["short", text]))

    found = asyncio.run(embedded())
    ids = encoder.tokenizer.ids(["short", text])
    windows = -(-len(ids[1]) // (MOST_TOKENS - 2))
    assert windows > 3
    assert len(at_once) >= windows
    for vector, one in zip(found.vectors, ids, strict=True):
        row = torch.frombuffer(bytearray(base64.b64decode(vector)), dtype=torch.float32)
        assert float(row @ encoder.unit_ids([one])[0]) == pytest.approx(1.0, abs=1e-5)
