"""A step's layout holds every planned position once, in few shapes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from afina.serving.layout import DecodeRows, lay_out, rounded_context, rounded_tokens
from afina.serving.sequences import Chunk, Plan, Prompt, Sequence


def sequence(size: int, generated: int) -> Sequence:
    prompt = Prompt("r", [1] * size)
    made = Sequence(prompt, 0, 999, tokens=[1] * generated)
    made.computed = made.target
    return made


@given(
    decodes=st.lists(st.integers(1, 3000), max_size=40),
    chunks=st.lists(st.tuples(st.integers(0, 2000), st.integers(1, 64)), max_size=6),
)
def test_all_rows_are_laid_out_once_and_nothing_overlaps(
    decodes: list[int], chunks: list[tuple[int, int]]
) -> None:
    plan = Plan(
        decodes=[sequence(size, 1) for size in decodes],
        chunks=[Chunk(sequence(start + length, 0), start, length) for start, length in chunks],
    )
    layout = lay_out(plan, 16, DecodeRows(), 4)
    members = [row for group in layout.groups for _, row in group.real()]
    assert len(members) == len(decodes) + len(chunks)
    assert {id(m.sequence) for m in members} == {
        id(s) for s in [*plan.decodes, *(c.sequence for c in plan.chunks)]
    }
    end = 0
    for group in layout.groups:
        assert group.offset == end
        rows = [row for _, row in group.real()]
        assert all(row.length <= group.width and row.stop <= group.context for row in rows)
        assert group.context % 16 == 0
        longest = max(row.stop for row in rows)
        assert all(2 * max(row.stop, 128) >= longest for row in rows)
        end += group.positions
    assert layout.tokens >= max(end, 4)


def test_there_are_few_shapes() -> None:
    assert len({rounded_tokens(n) for n in range(1, 513)}) <= 32
    assert len({rounded_context(n, 16) for n in range(1, 8193)}) <= 45


@given(steps=st.lists(st.sets(st.integers(0, 30)), max_size=8))
def test_decoding_rows_stay_where_they_are(steps: list[set[int]]) -> None:
    everyone = [sequence(20, 1) for _ in range(31)]
    rows = DecodeRows()
    before: list[Sequence | None] = []
    for step in steps:
        placed = rows.place(everyone[i] for i in sorted(step))
        now = next(iter(placed.values()), [])
        assert [s for s in now if s is not None and s not in {everyone[i] for i in step}] == []
        assert sum(s is not None for s in now) == len(step)
        for row, one in enumerate(before[: len(now)]):
            if one is not None and one in now:
                assert now[row] is one
        before = now
