"""Raw text is trained on as it is asked for: `{prompt, completion}` beside /v1/completions."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.tiny_chat import FAMILIES, make_folder

from afina.data.kinds import Pair, RowKind
from afina.data.raw_text import pair_row
from afina.data.rendering import write_rows
from afina.text.renderer import Renderer


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("prompt", ["", "The quick", " fox\n"])
def test_a_row_of_raw_text_begins_with_the_ids_that_its_prompt_is_asked_with(
    family: str, prompt: str, tmp_path: Path
) -> None:
    renderer = Renderer.load(make_folder(tmp_path / family, FAMILIES[family]))
    asked = renderer.plain_prompt(prompt)
    row = pair_row(Pair(prompt, " jumps"), renderer)
    assert asked, "the first token of a completion is learned from something"
    assert row.ids[: len(asked)].tolist() == asked
    assert row.learned.tolist() == [at >= len(asked) for at in range(len(row.ids))]
    assert row.ids[-1] == renderer.end_tokens[0]
    values = [{"prompt": prompt, "completion": " jumps"}]
    (counted,) = write_rows(RowKind.PROMPT_COMPLETION, values, renderer)
    assert counted.lengths == (len(row.ids),)  # type: ignore[union-attr]
    assert counted.learned == (int(row.learned.sum()),)  # type: ignore[union-attr]
