"""Biases, penalties and grammars change one answer's scores, by the formula, and nobody else's."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from llguidance import LLMatcher
from tests.tiny import tiny_tokenizer

from afina.errors import InvalidRequest
from afina.serving.grammar import Grammars, restrict
from afina.serving.penalties import Bias, Penalties, Reshaping, Reshapings
from afina.serving.sampling import Choosing, choose
from afina.text.detokenizer import Detokenizer
from afina.text.tokenizer import ChatTokenizer

END = 2


@pytest.fixture(scope="module")
def grammars() -> Grammars:
    tokenizer = ChatTokenizer(tiny_tokenizer().to_str())
    return Grammars(tokenizer, tokenizer.vocab_size + 7)


def zeros(size: int = 391) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.zeros(size, dtype=np.float32)


def test_a_penalty_counts_what_was_sampled() -> None:
    penalties = Penalties(presence=0.5, frequency=0.25)
    tokens = [3, 5, 3]
    for length in (1, 3):  # the answer grows between calls
        scores = zeros()
        penalties.apply(scores, tokens[:length])
    assert scores[3] == pytest.approx(-0.5 - 2 * 0.25)
    assert scores[5] == pytest.approx(-0.5 - 0.25)
    assert np.count_nonzero(scores) == 2


def test_a_bias_is_added_to_its_tokens_alone() -> None:
    scores = zeros()
    Bias({7: 2.0, 9: -100.0}).apply(scores, [])
    assert (scores[7], scores[9]) == (2.0, -100.0)
    assert np.count_nonzero(scores) == 2


def test_a_row_is_reshaped_alike_in_any_company_and_its_logits_stay() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(3, 400, generator=generator)
    before = logits.clone()

    def row(reshaping: Reshaping | None, temperature: float) -> Choosing:
        return Choosing(5, 0, 2, temperature, 1.0, None, reshaping, [int(logits[1].argmax())])

    for temperature in (0.0, 1.0):
        rows = [row(None, temperature), row(Penalties(2.0, 2.0), temperature), row(None, 1.0)]
        together = choose(logits, rows)
        alone = choose(logits[1:2], [row(Penalties(2.0, 2.0), temperature)])
        assert together[1] == alone[0]
        assert together[0] == choose(logits[:1], rows[:1])[0]
    assert torch.equal(logits, before)


def test_masks_say_the_same_however_dense_they_are() -> None:
    generator = np.random.default_rng(0)
    for share in (0.001, 0.03, 0.5, 0.97, 1.0):
        allowed = generator.random(384) < share
        mask = np.packbits(allowed, bitorder="little").view(np.int32)
        for size in (384, 371):
            scores = zeros(size)
            restrict(scores, mask)
            assert (np.isfinite(scores) == allowed[:size]).all()


def test_whatever_the_network_says_the_answer_follows_the_grammar(grammars: Grammars) -> None:
    schema = {
        "type": "object",
        "properties": {"kind": {"enum": ["fox", "dog"]}, "count": {"type": "integer"}},
        "required": ["kind", "count"],
        "additionalProperties": False,
        "x-guidance": {"whitespace_flexible": False},
    }
    text = LLMatcher.grammar_from_json_schema(schema)
    for seed in range(5):
        follower = grammars.follow(text, [END])
        generator = torch.Generator().manual_seed(seed)
        tokens: list[int] = []
        while END not in tokens and len(tokens) < 60:
            logits = torch.randn(1, 391, generator=generator) * 3
            logits[0, END] = 9.0  # as soon as it may end, it does
            how = Choosing(seed, 0, len(tokens), 1.0, 1.0, None, follower, tokens)
            tokens += choose(logits, [how])
        assert tokens[-1] == END
        value = json.loads(tiny_tokenizer().decode(tokens[:-1]))
        assert set(value) == {"kind", "count"}
        assert follower.fault is None


def test_answers_of_one_request_do_not_share_their_way(grammars: Grammars) -> None:
    text = LLMatcher.grammar_from_regex("ab|cd")
    tokenizer = tiny_tokenizer()
    a, b, c = (tokenizer.encode(letter).ids[0] for letter in "abc")
    first, second = grammars.follow(text, [END]), grammars.follow(text, [END])
    first.apply(zeros(), [])
    scores = zeros()
    first.apply(scores, [a])
    assert np.isfinite(scores[b])
    scores = zeros()
    second.apply(scores, [])
    assert np.isfinite(scores[c])


def test_a_token_that_the_grammar_forbids_is_a_fault_and_no_crash(grammars: Grammars) -> None:
    both = Reshapings([Bias({1: 1.0}), grammars.follow(LLMatcher.grammar_from_regex("a"), [END])])
    both.apply(zeros(), [0])
    assert both.fault is not None


def test_a_grammar_that_cannot_be_read_is_refused_without_its_text(grammars: Grammars) -> None:
    with pytest.raises(InvalidRequest) as refused:
        grammars.follow("start: secret_rule", [END])
    assert "secret" not in refused.value.one_line()


def test_a_visible_control_token_is_written_out() -> None:
    tokenizer = ChatTokenizer(tiny_tokenizer().to_str())
    ids = [*tokenizer.encode("hello "), 1, *tokenizer.encode("the fox")]
    shown, hidden = Detokenizer(tokenizer, {1}), Detokenizer(tokenizer)
    assert "".join(map(shown.push, ids)) + shown.finish() == "hello <|im_start|>the fox"
    assert "".join(map(hidden.push, ids)) + hidden.finish() == "hello the fox"
