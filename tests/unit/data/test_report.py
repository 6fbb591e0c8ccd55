"""The page and the distributions: they add up, escape, ask nobody, and hold no text of rows."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from afina.data.check import check_file
from afina.data.content.survey import check_content
from afina.data.distributions import Histogram, measure_rows
from afina.data.kinds import RowKind
from afina.data.limits import CheckLimits
from afina.data.report import html_report

CANARY = "zyxwvut"


def row(number: int) -> str:
    messages = [
        {"role": "user", "content": f"{CANARY} {'long ' * number}"},
        {"role": "assistant", "content": f"{CANARY} {number} a@b.example"},
    ]
    return json.dumps({"messages": messages})


class Tags(HTMLParser):
    """Notes tags and whatever points elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [str(value) for key, value in attrs if key in ("src", "href", "srcset")]


def test_a_rule_that_is_counted_and_not_listed_stands_on_the_page(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([*["{"] * 9, "[]", '{"messages": []}']))
    report = check_file(path, CheckLimits(max_findings=1), None)
    assert len(report.findings) == 1
    page = html_report(report, None, measure_rows(path, report.kind))
    for rule in report.counts:
        assert f"<td>{rule}</td>" in page
    assert "<meta name=viewport" in page
    assert not re.search("<svg (?![^>]*viewBox)", page), "pictures shrink with the page"


def test_the_page_stands_alone_escapes_and_says_no_text(tmp_path: Path) -> None:
    path = tmp_path / "<script>x.jsonl"
    path.write_text("\n".join([*map(row, range(12)), "{", '{"messages": []}', ""]))
    report = check_file(path, CheckLimits(), None)
    content = check_content(path)
    page = html_report(report, content, measure_rows(path, report.kind))
    tags = Tags()
    tags.feed(page)
    assert "script" not in tags.tags
    assert not tags.links
    assert not re.search(r"https?://|url\(|@import", page)
    assert "&lt;script&gt;x.jsonl" in page
    assert CANARY not in page
    for rule in (*report.counts, *content.counts):
        assert rule in page
    assert "a job with this file would fail" in page
    assert "line 13" in page


def test_distributions_count_every_row_once(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("\n".join([*map(row, range(40)), "{", "[]"]))
    found = measure_rows(path, RowKind.CHAT)
    assert (found.rows, found.without_system, found.without_user) == (40, 40, 0)
    assert {h.count for h in found.histograms.values()} == {40}
    path.write_text('{"prompt": "a", "completion": "bcd"}\n')
    pairs = measure_rows(path, RowKind.PROMPT_COMPLETION)
    assert pairs.histograms["characters answered"].filled() == [(4, 1)]
    assert (pairs.without_system, "messages" in pairs.histograms) == (0, False)


@given(values=st.lists(st.integers(0, 10**6), min_size=1, max_size=50))
def test_a_histogram_loses_nothing_and_its_bins_hold_their_values(values: list[int]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    filled = histogram.filled()
    assert sum(count for _, count in filled) == histogram.count == len(values)
    assert filled[-1][0] >= max(values) > filled[-1][0] / 2 or max(values) == 0
    assert (histogram.smallest, histogram.largest) == (min(values), max(values))
