"""Texts of templates as ids: pieces equal the whole."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.tiny_chat import FAMILIES, make_folder

from afina.text.encoding import TemplateText, TextEncoder
from afina.text.tokenizer import ChatTokenizer

TEXTS = st.text(st.sampled_from(" \n\t\rabcxyz<|>_AZ09.,'éß日🎉\u2028\u00a0"), max_size=12)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ChatTokenizer]:
    root = tmp_path_factory.mktemp("families")
    return {n: ChatTokenizer.load(make_folder(root / n, f)) for n, f in FAMILIES.items()}


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(texts=st.lists(TEXTS, min_size=1, max_size=6), data=st.data())
def test_pieces_between_control_tokens_give_the_ids_of_the_whole(
    name: str, tokenizers: dict[str, ChatTokenizer], texts: list[str], data: st.DataObject
) -> None:
    """The reason why a text may be encoded piece by piece (see afina.text.encoding)."""
    tokenizer = tokenizers[name]
    control = [piece.text for piece in tokenizer.control]
    text = "".join(piece + data.draw(st.sampled_from(control)) for piece in texts)
    encoder = TextEncoder(tokenizer)
    pieces = encoder.encode(TemplateText(text, (), mark="\ufdd1"))
    assert pieces.ids.tolist() == tokenizer.encode_template(text)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_cut_is_a_border_between_tokens(name: str, tokenizers: dict[str, ChatTokenizer]) -> None:
    tokenizer = tokenizers[name]
    encoder = TextEncoder(tokenizer)
    opening = tokenizer.control[-1].text + "assistant\n"
    for answer in ("Yes", "\n\nYes", " Yes", "", "\n"):
        found = encoder.encode(TemplateText(opening + answer, (len(opening),)))
        (place,) = found.positions
        assert found.ids[:place].tolist() == tokenizer.encode_template(opening)


def test_positions_are_those_of_each_cut(tokenizers: dict[str, ChatTokenizer]) -> None:
    tokenizer = tokenizers["chatml"]
    text = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes<|im_end|>\n"
    cuts = (text.index("Yes"), text.rindex("\n"), len(text))
    plain = TextEncoder(tokenizer).encode(TemplateText(text, cuts))
    marked = TextEncoder(tokenizer).encode(TemplateText(text, cuts, mark="\ufdd1"))
    assert plain.ids.tolist() == marked.ids.tolist()
    assert plain.positions == marked.positions
    first, second, last = plain.positions
    assert tokenizer.decode(plain.ids[first:second].tolist(), skip_control=False) == "Yes<|im_end|>"
    assert last == len(plain.ids)
