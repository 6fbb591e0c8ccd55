"""A step's layout holds every planned position once, in few shapes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from afina.serving.layout import DecodeRows, lay_out, rounded_context, rounded_tokens
from afina.serving.sequences import Chunk, Plan, Prompt, Sequence


def sequence(size: int, generated: int, adapter: str | None = None) -> Sequence:
    prompt = Prompt("r", [1] * size, adapter)
    made = Sequence(prompt, 0, 999, tokens=[1] * generated)
    made.computed = made.target
    return made


ADAPTERS = st.sampled_from([None, "a", "b"])


@given(
    decodes=st.lists(st.tuples(st.integers(1, 3000), ADAPTERS), max_size=40),
    chunks=st.lists(
        st.tuples(st.integers(0, 2000), st.integers(1, 64), st.integers(0, 40), ADAPTERS),
        max_size=6,
    ),
)
def test_every_position_is_laid_out_once_and_finds_its_own_adapter(
    decodes: list[tuple[int, str | None]], chunks: list[tuple[int, int, int, str | None]]
) -> None:
    plan = Plan(
        decodes=[sequence(size, 1, adapter) for size, adapter in decodes],
        chunks=[
            Chunk(sequence(max(1, start + length - sampled), sampled + 1, adapter), start, length)
            for start, length, sampled, adapter in chunks
        ],
    )
    layout = lay_out(plan, 16, DecodeRows(), 4)
    rows = list(layout.rows())
    assert {id(row.sequence) for row in rows} == {
        id(s) for s in [*plan.decodes, *(c.sequence for c in plan.chunks)]
    }
    taken = [row.at + i for row in rows for i in range(row.length)]
    assert len(set(taken)) == len(taken)
    assert layout.tokens >= max([*taken, 3]) + 1
    for group in layout.groups:
        members = [row for _, row in group.real()]
        assert all(row.length <= group.width and row.stop <= group.context for row in members)
        assert group.context % 16 == 0
        longest = max(row.stop for row in members)
        assert all(2 * max(row.stop, 128) >= longest for row in members)
    sampled = layout.sampled_adapters()
    prompted = {p: s.adapter for s in layout.prompt_spans() for p in range(s.start, s.stop)}
    for span in layout.prompt_spans():
        assert span.stop <= layout.tokens
    for row in rows:
        own = row.sequence.prompt.adapter
        for i in range(row.length):
            by_bag = sampled[row.at + i] if row.at + i < len(sampled) else None
            is_prompt = row.start + i < len(row.sequence.prompt.ids)
            assert (prompted.get(row.at + i), by_bag) == ((own, None) if is_prompt else (None, own))


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
