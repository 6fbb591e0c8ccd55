"""Rules over a file as a whole."""

from __future__ import annotations

from afina.data.rules.rule import Fault, Faults, FileFacts


def empty_file(file: FileFacts) -> Faults:
    if file.rows == 0:
        what = "The file is empty." if file.bytes_total == 0 else "The file has blank lines only."
        yield Fault(what)


def too_few_rows(file: FileFacts) -> Faults:
    if file.rows > 0 and file.usable < file.min_rows:
        yield Fault(
            f"The file has {file.usable} usable example(s), but must have at least "
            f"{file.min_rows} examples."
        )


def blank_lines(file: FileFacts) -> Faults:
    if file.rows and file.blank_lines:
        how = "line is" if file.blank_lines == 1 else "lines are"
        yield Fault(f"{file.blank_lines} {how} blank and passed over.", line=file.first_blank)


def too_many_errors(file: FileFacts) -> Faults:
    if file.last_line is not None:
        yield Fault(f"The check stopped at line {file.last_line}: too many rows have errors.")


def duplicate_rows(file: FileFacts) -> Faults:
    for line, earlier in file.duplicates:
        message = f"The row is the same as in line {earlier}."
        yield Fault(message, line=line, other_line=earlier)


def too_many_rows(file: FileFacts) -> Faults:
    if file.max_rows is not None and file.rows > file.max_rows:
        yield Fault(f"The file has {file.rows:,} rows; at most {file.max_rows:,} are allowed.")


def parallel_flag_without_effect(file: FileFacts) -> Faults:
    if file.parallel_flags.count:
        yield Fault(
            f'{file.parallel_flags.count:,} rows say "parallel_tool_calls", which changes nothing '
            "in training.",
            line=file.parallel_flags.first_line,
            field="parallel_tool_calls",
        )


def name_without_effect(file: FileFacts) -> Faults:
    if file.names.count:
        yield Fault(
            f'{file.names.count:,} messages have a "name", which the model\'s chat template does '
            "not write.",
            line=file.names.first_line,
            field="name",
        )
