"""Two who change one draft at the same time: the second goes on from what the first left."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType

import pytest
from tests.platforms import BASE

from afina.domain.accounts import Caller
from afina.errors import NotFound
from afina.service import bases, draft_files, draft_rows, drafts
from afina.service.draft_edits import locked
from afina.service.draft_files import Columns
from afina.service.draft_rows import drop_rows, verdict_of
from afina.service.drafts import choose_base, choose_columns, get_draft, start_draft
from afina.service.platform import Platform

TABLE = b"question,answer,other\nHi,Yes,X\nHo,No,\n"
OTHER = Columns(user="question", assistant="other")


@pytest.fixture
def somebody_before(
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[ModuleType, Callable[[], object]], None]:
    """Lets a change happen just before the next lock is taken."""

    def arrange(module: ModuleType, change: Callable[[], object]) -> None:
        def lock(folder: Path) -> AbstractContextManager[None]:
            monkeypatch.setattr(module, "locked", locked)
            change()
            return locked(folder)

        monkeypatch.setattr(module, "locked", lock)

    return arrange


def test_a_change_that_waited_keeps_what_was_chosen_meanwhile(
    platform: Platform,
    caller: Caller,
    somebody_before: Callable[[ModuleType, Callable[[], object]], None],
) -> None:
    draft = start_draft(platform, caller, [TABLE], "table.csv", None)
    somebody_before(drafts, lambda: choose_columns(platform, caller, draft.id, OTHER))
    choose_base(platform, caller, draft.id, BASE)
    now = get_draft(platform, caller, draft.id)
    assert (now.chosen, now.base) == (OTHER, BASE)


def test_a_row_is_looked_for_among_those_that_are_there_then(
    platform: Platform,
    caller: Caller,
    somebody_before: Callable[[ModuleType, Callable[[], object]], None],
) -> None:
    draft = start_draft(platform, caller, [b"question;answer\nHi;Yes\n"], "table.csv", None)
    folder = drafts.folder_of(platform, draft.id)
    line = b'{"messages": []}\n'
    somebody_before(drafts, lambda: draft_files.add_line(folder, draft, line))
    assert drop_rows(platform, caller, draft.id, [2]).dropped == 1
    with pytest.raises(NotFound, match="rows from 1 to 2"):
        drop_rows(platform, caller, draft.id, [3])


def test_a_check_that_waited_is_by_the_model_that_was_chosen_meanwhile(
    platform: Platform,
    caller: Caller,
    somebody_before: Callable[[ModuleType, Callable[[], object]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draft = start_draft(platform, caller, [TABLE], "table.csv", None)
    asked: list[str] = []

    def get_base(_: Platform, base: str) -> None:
        asked.append(base)

    monkeypatch.setattr(bases, "get_base", get_base)
    somebody_before(draft_rows, lambda: choose_base(platform, caller, draft.id, BASE))
    verdict_of(platform, draft)
    assert asked == [BASE]
