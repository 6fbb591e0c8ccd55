"""How the records of one file become rows: decided once, by its columns and what the user said."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from afina.data.cells import cell_text, check_template, fill_template, is_template
from afina.data.columns import Mapped, listed, map_columns
from afina.data.exports import LeftOut
from afina.data.grouping import (
    LogColumns,
    Turns,
    likely_order,
    log_columns,
    log_message,
    log_of,
    place_of,
)
from afina.data.layouts import LAYOUTS, find_layout, not_used, read_layout
from afina.data.readers.records import Record
from afina.data.remarks import Remark, remark
from afina.data.writing import WRITTEN
from afina.errors import InvalidRequest

_MOST_NAMED: Final = 10
_JUDGED_COLUMNS: Final = {"prompt", "completion", "label"}


@dataclass(frozen=True)
class ConvertOptions:
    """How columns become messages. Names of columns are matched without regard to case."""

    user: str | None = None
    assistant: str | None = None
    system_column: str | None = None
    system: str | None = None
    """A fixed system message in front of every row."""
    format: str | None = None
    """csv, tsv, xlsx, json, jsonl, parquet; by default from the file's name."""
    encoding: str | None = None
    delimiter: str | None = None
    sheet: str | None = None
    layout: str | None = None
    """One of LAYOUTS; by default what the columns' names give away."""
    group: str | None = None
    """The column whose value says which conversation a record is of."""
    order: str | None = None
    """The column that says in which order the records of a conversation stand, as numbers or
    dates; by default they stand as in the file."""
    write: str = "chat"
    """One of WRITTEN: the layout to write."""
    keep_broken: bool = False
    """Whether lines of JSONL that are no object are written as they stand, for who mends them."""


@dataclass(frozen=True)
class RowPlan:
    """What to do with each record."""

    layout: str
    write: str
    options: ConvertOptions
    mapped: Mapped
    templates: Mapping[str, str] = field(default_factory=dict)
    """`user` or `assistant`, where it is made of several columns."""
    group: str | None = None
    log: LogColumns | None = None
    order: str | None = None
    """The column that orders, or that may: `options.order` says whether it was asked for."""
    notes: tuple[Remark, ...] = ()

    def row(self, values: Mapping[str, Any], left_out: LeftOut) -> dict[str, Any]:
        """A record as a row; what a layout leaves out is counted in `left_out`. Raises
        InvalidRequest where the record has not the layout."""
        if self.layout != "columns":
            return with_system(read_layout(self.layout, values, left_out), self.options.system)
        return {"messages": self.turns(values)}

    def turns(self, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The messages that a record of a table holds. A missing value is an empty text."""
        messages = []
        # a log says it in front of the whole conversation, if that does not begin with its own
        system = None if self.log else self.options.system
        if self.mapped.system is not None:
            system = cell_text(values.get(self.mapped.system)) or system
        if system:
            messages.append({"role": "system", "content": system})
        if self.log is not None:
            return [*messages, log_message(values, self.log)]
        for role, column in (("user", self.mapped.user), ("assistant", self.mapped.assistant)):
            template = self.templates.get(role)
            text = fill_template(template, values) if template else cell_text(values.get(column))
            messages.append({"role": role, "content": text})
        return messages

    @property
    def named_columns(self) -> tuple[str, ...]:
        """The columns that the user and the assistant speak from, where each is one."""
        both = ("user", self.mapped.user), ("assistant", self.mapped.assistant)
        return tuple(name for role, name in both if name and role not in self.templates)

    def turns_of(self, record: Record) -> Turns:
        """A record as a part of its conversation."""
        values = record.values
        return Turns(
            record.line,
            cell_text(values.get(self.group or "")),
            self.turns(values),
            None if self.order is None else place_of(values.get(self.order)),
        )

    def conversation(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        """The row that a conversation becomes."""
        row = {"messages": messages}
        return with_system(row, self.options.system) if self.log else row


def plan_rows(
    columns: Sequence[str],
    options: ConvertOptions,
    text: bool = False,
    nested: Collection[str] = (),
) -> RowPlan:
    """Raises InvalidRequest that lists what there is. `text`: lines of plain text; `nested`:
    columns that hold objects."""
    _known("layout", options.layout, LAYOUTS)
    _known("as", options.write, WRITTEN)
    _refuse_unused(options, text)
    if text:
        if options.write not in ("chat", "pair"):
            raise InvalidRequest("Lines of plain text are written as pairs.", param="as")
        notes = (remark("plain_lines"),)
        return RowPlan("pair", "pair", options, Mapped(), notes=notes)
    if options.group is not None:
        return _grouped_plan(columns, options)
    named = (options.user, options.assistant, options.system_column)
    given_away = None if any(named) else find_layout(columns, nested)
    layout = options.layout or given_away or "columns"
    if layout != "columns":
        write = layout if options.write == "chat" and layout in ("pair", "preference") else None
        read = () if layout == "chat" else (remark("read_as", layout=layout),)
        note = (*read, *_left_out(not_used(layout, columns)))
        return RowPlan(layout, write or options.write, options, Mapped(), notes=note)
    mapped, templates = _mapped_or_log(columns, options)
    judged = (
        (remark("judged"),) if {column.lower() for column in columns} >= _JUDGED_COLUMNS else ()
    )
    said = (*mapped.notes, *_left_out(_unnamed(columns, mapped, templates)), *judged)
    return RowPlan(layout, options.write, options, mapped, templates, notes=said)


def _unnamed(
    columns: Sequence[str], mapped: Mapped, templates: Mapping[str, str]
) -> tuple[str, ...]:
    """Columns of a table that no message is made of."""
    one_by_one = {"user": mapped.user, "assistant": mapped.assistant}
    used = {name for role, name in one_by_one.items() if role not in templates}
    used.add(mapped.system or "")
    texts = "".join(templates.values())
    return tuple(c for c in columns if c not in used and f"{{{c}}}" not in texts)


def _left_out(columns: Sequence[str]) -> tuple[Remark, ...]:
    if not columns:
        return ()
    more = len(columns) - _MOST_NAMED
    named = ", ".join(map(repr, columns[:_MOST_NAMED]))
    return (
        remark("not_used_more", names=named, n=more)
        if more > 0
        else remark("not_used", names=named),
    )


def _refuse_unused(options: ConvertOptions, text: bool) -> None:
    """What would be asked for and left out."""
    by_columns = ("user", "assistant", "system_column", "group", "order")
    given = [name for name in by_columns if getattr(options, name) is not None]
    flag = f"--{given[0].replace('_', '-')}" if given else ""
    if given and options.layout not in (None, "columns"):
        raise InvalidRequest(
            f"Rows of the layout {options.layout} say themselves what is said, and {flag} names a "
            "column.",
            param=given[0],
            remedy=f"Leave one of --layout and {flag} out.",
        )
    if options.order is not None and options.group is None:
        raise InvalidRequest(
            "--order puts the records of conversations in order, and --group does not say which "
            "they are of.",
            param="order",
            remedy="Give --group COLUMN too.",
        )
    if text and options.layout not in (None, "pair"):
        raise InvalidRequest(
            f"Lines of plain text have not the layout {options.layout}.",
            param="layout",
            remedy="Leave --layout out, or say with --format what the file is.",
        )
    if options.system and (text or options.layout == "pair"):
        raise InvalidRequest(
            "A prompt and its completion have no system message.",
            param="system",
            remedy="Leave --system out.",
        )


def _grouped_plan(columns: Sequence[str], options: ConvertOptions) -> RowPlan:
    assert options.group is not None, "asked for"
    log = log_columns(columns, options.group)
    group = log.group if log else _column(columns, options.group)
    order = likely_order(columns) if options.order is None else _column(columns, options.order)
    plan = RowPlan("columns", options.write, options, Mapped(), group=group, order=order)
    if log is not None and options.user is None and options.assistant is None:
        notes = (remark("says_who", who=repr(log.role), what=repr(log.text)),)
        mapped = Mapped(system=_system_column(columns, options))
        return replace(plan, mapped=mapped, log=log, notes=notes)
    mapped, templates = _mapped([c for c in columns if c != group], options)
    return replace(plan, mapped=mapped, templates=templates, notes=tuple(mapped.notes))


def _mapped_or_log(
    columns: Sequence[str], options: ConvertOptions
) -> tuple[Mapped, dict[str, str]]:
    """As `_mapped`; a log of messages needs to know which of them are one conversation."""
    try:
        return _mapped(columns, options)
    except InvalidRequest as error:
        log = log_of(columns)
        if log is not None and not (options.user or options.assistant):
            remedy = (
                f"{error.remedy} If {log[0]!r} says who speaks and {log[1]!r} what, give --group "
                "with the column that says which conversation it is in."
            )
            raise InvalidRequest(error.message, param=error.param, remedy=remedy) from None
        raise


def _mapped(columns: Sequence[str], options: ConvertOptions) -> tuple[Mapped, dict[str, str]]:
    """Columns by name, and templates for those that are made of several."""
    templates = {}
    for role, name in (("user", options.user), ("assistant", options.assistant)):
        if name is not None and is_template(name, columns):
            check_template(name, columns, role)
            templates[role] = name
    if len(templates) == 2:
        return Mapped("", "", _system_column(columns, options)), templates
    # The one that is a template needs no column; any two names that differ will do for it.
    user = columns[0] if "user" in templates else options.user
    assistant = columns[-1] if "assistant" in templates else options.assistant
    if templates and user == assistant:
        system = _system_column(columns, options)
        return Mapped(user or "", assistant or "", system), templates
    return map_columns(columns, user, assistant, options.system_column), templates


def _system_column(columns: Sequence[str], options: ConvertOptions) -> str | None:
    return None if options.system_column is None else _column(columns, options.system_column)


def _column(columns: Sequence[str], name: str) -> str:
    for column in columns:
        if column.strip().lower() == name.strip().lower():
            return column
    raise InvalidRequest(
        f"There is no column {name!r}.",
        param="column",
        remedy=listed(columns),
    )


def _known(flag: str, value: str | None, known: Sequence[str]) -> None:
    if value is not None and value not in known:
        raise InvalidRequest(
            f"There is no layout {value!r} for --{flag}.",
            param=flag,
            remedy=f"There are: {', '.join(known)}.",
        )


def with_system(row: dict[str, Any], system: str | None) -> dict[str, Any]:
    """The row with the fixed system message in front, where its chat has none."""
    if isinstance(row.get("input"), dict) and "preferred_output" in row:
        return {**row, "input": with_system(row["input"], system)}
    messages = row.get("messages")
    if not system or not isinstance(messages, list):
        return row
    first = messages[0] if messages else None
    if isinstance(first, dict) and first.get("role") in ("system", "developer"):
        return row
    return {**row, "messages": [{"role": "system", "content": system}, *messages]}
