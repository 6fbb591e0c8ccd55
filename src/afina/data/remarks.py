"""What is said of a file beside its rows: by name and values, so that each reader hears it in their
language. `ENGLISH` has the words of the command line and of Python; the pages have their own.

Of `one|many` `n` chooses the form. `{at}` is the first line where something stands, if lines are
known there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from afina.domain.sayings import form_for

Value = str | int
_AT: Final = ", the first in line {line}"
_LINES: Final = frozenset({"line", "lines"})
"""Numbers that are places and no counts."""

ENGLISH: Final[Mapping[str, str]] = {
    "header_line": "The names of columns stand in line {line}; what is above is passed over.",
    "table_in_text": "The text is a table and was read as one; --format txt takes its lines.",
    "single_quotes": "Cells stand in single quotation marks, which were left out.",
    "plain_lines": "Each line is a completion with an empty prompt.",
    "no_rows": "There are names of columns and no row below them.",
    "guessed_encoding": "The encoding is a guess: look at some letters with accents in what was "
    "written, and give --encoding where they are others.",
    "merged": "Cells were merged downwards: {n} of the rows below got their value.",
    "cell_errors": "Errors of the sheet stand in place of values in {n} of the cells, {error} in "
    "{cell} for one: mend them there.",
    "hidden_rows": "Hidden rows are read too, {n} of them, line {line} for one: delete them, or "
    "copy what is visible, where they are not meant.",
    "hidden_sheets": "Hidden sheets are not read: {names} (--sheet reads one).",
    "formulas": "Formulas without a stored value are empty here, that in {cell} for one: open the "
    "workbook in a spreadsheet program and save it.",
    "percentages": "Percentages are written as the numbers that are stored, {cell} for one: 12 % "
    "is 0.12. Make text of them in the sheet where they are to be read so.",
    "noughts": "Noughts in front are shown and not stored, in {cell} for one, and are left out: "
    "make text of such numbers in the sheet where they matter, as in postal codes.",
    "long_numbers": "Numbers of more than 15 digits, {cell} for one, were rounded by the program "
    "that wrote the sheet: enter them anew as text where each digit matters.",
    "keys_twice": "{n} object has a key twice; the last value was taken.|{n} objects have a key "
    "twice; the last value was taken.",
    "constants": "NaN or Infinity stands once; it was read as null.|NaN or Infinity stands {n} "
    "times; it was read as null.",
    "one_list": "The file is one JSON list, not an object a line; it was read as that.",
    "over_lines": "Objects stand over several lines; they were read as such.",
    "under_key": "The rows are those under {key}.",
    "marks": "{n} line begins with a byte order mark, as where files were joined; it was left "
    "out.|{n} lines begin with a byte order mark, as where files were joined; it was left out.",
    "commas": "{n} line ends with a comma behind its object; it was left out.|{n} lines end with "
    "a comma behind their object; it was left out.",
    "taken_as": "Column {column} is taken as --{flag}.",
    "says_who": "Column {who} says who speaks, {what} what.",
    "log": "The table may be a log of messages: {who} says who speaks, {what} what. Choose the "
    "column that says which conversation a message is of.",
    "read_as": "Records are read as {layout}.",
    "not_used": "Not used: {names}.",
    "not_used_more": "Not used: {names} and {n} more.",
    "index_not_used": "Not used: the index {names}; frame.reset_index() makes columns of it.",
    "judged": "The column 'label' may say which completions are good, as for KTO: the bad ones "
    "are written too, and would be learned. Leave their rows out first.",
    "nested": "Column {column} holds lists or objects in {n} row{at}; they were written as JSON "
    "text. Chats are read from a column called messages or conversations.|Column {column} holds "
    "lists or objects in {n} rows{at}; they were written as JSON text. Chats are read from a "
    "column called messages or conversations.",
    "thinking": "Thinking stands once{at}; it was left out: rows hold what was said.|Thinking "
    "stands {n} times{at}; it was left out: rows hold what was said.",
    "context": "What a user or a model keeps for all conversations stands once{at}; it was left "
    "out: rows hold what was said.|What a user or a model keeps for all conversations stands {n} "
    "times{at}; it was left out: rows hold what was said.",
    "role": "The role {role} stands once{at}; no chat has it. Roles are system, user, assistant "
    "and tool: the check refuses others.|The role {role} stands {n} times{at}; no chat has it. "
    "Roles are system, user, assistant and tool: the check refuses others.",
    "key": "The key {key} stands beside the messages of {n} chat{at}, and no chat may have it: "
    "`afina data check FILE --fix OUT` takes it out.|The key {key} stands beside the messages of "
    "{n} chats{at}, and no chat may have it: `afina data check FILE --fix OUT` takes it out.",
    "zeros": "The character U+0000 stands in {n} row{at}: look whether its text is whole.|The "
    "character U+0000 stands in {n} rows{at}: look whether their text is whole.",
    "read_wrong": "Letters such as Ã© in place of é stand in {n} row{at}: the text was read in "
    "another encoding before it came here. Export it anew as UTF-8.|Letters such as Ã© in place "
    "of é stand in {n} rows{at}: the text was read in another encoding before it came here. "
    "Export it anew as UTF-8.",
    "other_order": "Turns stand as in the file. Column {column} puts {n} of the conversations in "
    "another order: give --order {column} where it says theirs.",
    "dropped": "Dropped ({reason}): line {lines}.",
    "dropped_more": "Dropped ({reason}): line {lines} and {n} more.",
    "unquoted": "A cell that holds what separates cells must stand in quotation marks.",
}


@dataclass(frozen=True)
class Remark:
    """One sentence, by its name and with what fills it in."""

    name: str
    values: Mapping[str, Value] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The sentence in English."""
        shown = {
            name: f"{value:,}" if isinstance(value, int) and name not in _LINES else value
            for name, value in self.values.items()
        }
        at = _AT.format(**shown) if "line" in shown else ""
        return form_for(ENGLISH[self.name], self.values.get("n")).format(at=at, **shown)


def remark(name: str, **values: Value) -> Remark:
    """A sentence by its name. Raises KeyError for one that nobody knows."""
    if name not in ENGLISH:
        raise KeyError(name)
    return Remark(name, values)
