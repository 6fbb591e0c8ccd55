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
        yield Fault(f"The row is the same as in line {earlier}.", line=line)
