"""The report on a file as one HTML page: no server, no script, nothing from elsewhere.

It shows findings, counts and lengths, and like every finding it holds no text of a row. Names of
files are escaped; the page forbids scripts and requests by its own policy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Final

from afina.data.check import CheckReport
from afina.data.content.survey import ContentReport
from afina.data.distributions import Distributions, Histogram
from afina.data.rules.registry import BY_CODE
from afina.domain.findings import Finding, Severity

_SHOWN: Final = 2000
_UNKNOWN: Final = "not known"
_STYLE: Final = """
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;
margin:2rem auto;padding:0 1rem}h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.25rem .6rem;
border-bottom:1px solid #8884;vertical-align:top}td.n{text-align:right;
font-variant-numeric:tabular-nums}.error{color:#b3261e;font-weight:600}.warning{color:#8a5a00}
@media(prefers-color-scheme:dark){.error{color:#ff8a80}.warning{color:#ffca6b}}
table{overflow-wrap:anywhere}svg{max-width:100%;height:auto}.bar{fill:#3b6fd4}text{font-size:11px;fill:currentColor}.good{color:#1b7f3b;font-weight:600}
"""


def html_report(report: CheckReport, content: ContentReport | None, lengths: Distributions) -> str:
    """The whole page."""
    findings = [*report.findings, *(content.findings if content else ())]
    counts = dict(report.counts) | dict(content.counts if content else {})
    parts = [
        "<!doctype html><html lang=en><head><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width, initial-scale=1'>",
        "<meta http-equiv=Content-Security-Policy "
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>{escape(report.file)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(report.file)}</h1>{_verdict(report)}",
        _table(_facts(report, content, lengths)),
        "<h2>Findings by rule</h2>" if counts else "<p>No findings.</p>",
        _counts(counts, findings),
        "<h2>Lengths</h2>",
        *(_picture(name, histogram) for name, histogram in lengths.histograms.items()),
    ]
    if findings:
        parts += ["<h2>Findings</h2>", _findings(findings, sum(counts.values()))]
    return "".join([*parts, "</body></html>\n"])


def _verdict(report: CheckReport) -> str:
    if report.has_errors:
        many = "1 error" if report.errors == 1 else f"{report.errors:,} errors"
        return f"<p class=error>{many}: a job with this file would fail.</p>"
    return "<p class=good>No errors: a job can train on this file.</p>"


def _facts(
    report: CheckReport, content: ContentReport | None, lengths: Distributions
) -> list[tuple[str, str]]:
    facts = [
        ("rows", f"{report.rows_total:,} ({report.kind.replace('_', ' ')})"),
        ("usable", f"{report.rows_usable:,}"),
        ("blank lines", f"{report.blank_lines:,}"),
        ("bytes", f"{report.bytes_total:,}"),
        ("rows without a system message", f"{lengths.without_system:,}"),
        ("rows without a user's message", f"{lengths.without_user:,}"),
    ]
    if report.rendered:
        facts += [
            ("tokens", f"{report.tokens:,}, {report.learned_tokens:,} of them learned"),
            ("longest row", f"{report.longest_row:,} tokens"),
        ]
    if content is not None and content.languages:
        said = ", ".join(
            f"{_UNKNOWN if code == 'und' else escape(code)} {count:,}"
            for code, count in content.languages.items()
        )
        facts.append(("languages of answers", said))
    return facts


def _counts(counts: Mapping[str, int], findings: Iterable[Finding]) -> str:
    if not counts:
        return ""
    remedies = {f.rule: f.remedy for f in reversed(list(findings))}
    by_weight = sorted(
        counts.items(), key=lambda one: (BY_CODE[one[0]].severity is not Severity.ERROR, -one[1])
    )
    rows = [
        f"<tr><td class={BY_CODE[rule].severity}>{BY_CODE[rule].severity}</td>"
        f"<td>{escape(rule)}</td><td class=n>{count:,}</td>"
        f"<td>{escape(remedies.get(rule, BY_CODE[rule].remedy))}</td></tr>"
        for rule, count in by_weight
    ]
    head = "<tr><th></th><th>rule</th><th>places</th><th>what to do</th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"


def _findings(findings: list[Finding], total: int) -> str:
    rows = []
    for finding in findings[:_SHOWN]:
        place = "the file" if finding.line is None else f"line {finding.line:,}"
        if finding.message_number is not None:
            place += f", message {finding.message_number}"
        rows.append(
            f"<tr><td>{escape(finding.file)}</td><td>{place}</td>"
            f"<td class={finding.severity}>{escape(finding.rule)}</td>"
            f"<td>{escape(finding.message)}</td></tr>"
        )
    more = total - len(rows)
    note = f"<p>{more:,} more are counted above and not listed.</p>" if more > 0 else ""
    return f"<table>{''.join(rows)}</table>{note}"


def _table(facts: list[tuple[str, str]]) -> str:
    return f"<table>{''.join(f'<tr><td>{k}</td><td>{v}</td></tr>' for k, v in facts)}</table>"


def _picture(name: str, histogram: Histogram) -> str:
    """Bars as SVG, one a bin, with the bin's upper bound below and its count above."""
    bins = histogram.filled()
    if not bins:
        return ""
    most = max(count for _, count in bins)
    wide = 46
    bars = []
    for place, (bound, count) in enumerate(bins):
        tall = round(90 * count / most)
        left = place * wide
        bars.append(
            f'<rect class=bar x="{left + 3}" y="{110 - tall}" width="{wide - 6}" height="{tall}"/>'
            f'<text x="{left + wide / 2}" y="{104 - tall}" text-anchor=middle>{count:,}</text>'
            f'<text x="{left + wide / 2}" y="124" text-anchor=middle>≤{bound:,}</text>'
        )
    size = f'width="{len(bins) * wide}" height="130" viewBox="0 0 {len(bins) * wide} 130"'
    said = f"{histogram.smallest:,} to {histogram.largest:,}, {histogram.mean:,.1f} on average"
    return (
        f"<h3>{escape(name)}</h3><p>{said}</p>"
        f'<svg {size} role=img aria-label="{escape(name)}: {said}">{"".join(bars)}</svg>'
    )
