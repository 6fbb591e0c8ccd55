"""The page docs/rules.md: a table of all rules, and a part for each with a bad and a good row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from afina.data.fixes import FIXES, OF_THE_FILE
from afina.data.rules.examples import EXAMPLES
from afina.data.rules.file_examples import FILE_EXAMPLES
from afina.data.rules.registry import TITLES
from afina.data.rules.rule import Rule

_HEAD: Final = """# The rules of `afina data check`

The same rules run for the command, the API and a job. An error stops a job; a warning is
said and counted. Every finding names the file, the line, the message where there is one,
the rule and the remedy, and never repeats what people wrote: a key or a role is named
only where it looks like a name. `--fix` mends what is marked so, into a new file.

This page is generated from `afina.data.rules.registry`; the rows shown are also tests.
"""


def catalogue() -> str:
    """The whole page."""
    parts = [_HEAD]
    for title, rules in TITLES:
        parts += [f"## {title}\n", "| rule | severity | what is wrong |", "|---|---|---|"]
        parts += [f"| [`{r.code}`](#{r.code}) | {r.severity} | {r.doc} |" for r in rules]
        parts.append("")
    parts.append("# One by one\n")
    for _, rules in TITLES:
        for rule in rules:
            parts += _part(rule)
    return "\n".join(parts).rstrip() + "\n"


def _part(rule: Rule) -> Iterator[str]:
    yield f"### {rule.code}\n"
    yield f"{str(rule.severity).capitalize()}. {rule.doc}\n"
    yield f"**Remedy.** {rule.remedy}\n"
    if rule.code in FIXES or rule.code in OF_THE_FILE:
        how = OF_THE_FILE.get(rule.code)
        yield f"`--fix` mends it{f': {how}' if how else ''}.\n"
    example = EXAMPLES.get(rule.code)
    if example is not None:
        yield f"Bad:\n\n```json\n{example.bad}\n```\n\nGood:\n\n```json\n{example.good}\n```\n"
    file = FILE_EXAMPLES.get(rule.code)
    if file is not None:
        yield f"Bad, for example: {file.words[0].lower()}{file.words[1:]}\n"
