"""Requests drawn from an OpenAPI document by Schemathesis, right ones and wrong ones, sent to a live
server; every answer is held to the document.

What must hold: no 5xx, a status that the document names, its content type, and its shape.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.openapi import from_dict

load_all_checks()
CHECKED: Final[Any] = CHECKS.get_by_names(
    [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_schema_conformance",
    ]
)
NOT_DRAWN: Final = frozenset({"GET /metrics", "GET /v1/afina/export"})
"""Bodies that are no JSON and cost a second each."""


@dataclass
class Verdict:
    """How many answers had which status, and what was wrong, by operation."""

    statuses: Counter[str] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)


def judge(
    document: dict[str, Any], url: str, key: str, ids: dict[str, list[str]], cases: int
) -> Verdict:
    """Sends about `cases` requests an operation, until one of its answers is wrong.

    `ids`: what the path parameters of that name may be beside what is drawn, so that requests also
    reach objects that are there."""
    verdict = Verdict()
    schema = from_dict(document)
    session = requests.Session()
    session.trust_env = False
    with session:
        for number, result in enumerate(schema.get_all_operations()):
            assert isinstance(result, Ok), result
            operation = result.ok()
            name = f"{operation.method.upper()} {operation.path}"
            if name in NOT_DRAWN:
                continue
            strategy = _cases(operation, ids)

            @seed(number)
            @settings(
                max_examples=cases,
                database=None,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=strategy)
            def send(case: Case[Any]) -> None:
                answer = case.call(
                    base_url=url,
                    session=session,
                    headers={"authorization": f"Bearer {key}"},
                    timeout=30,
                )
                verdict.statuses[str(answer.status_code)] += 1
                case.validate_response(answer, checks=CHECKED)

            try:
                send()
            except FailureGroup as found:
                verdict.failures[name] = "\n".join(str(one) for one in found.exceptions)
    return verdict


def _cases(
    operation: schemathesis.APIOperation[Any, Any, Any, Any], ids: dict[str, list[str]]
) -> Any:
    drawn = operation.as_strategy(GenerationMode.POSITIVE)
    if operation.body or operation.query:
        drawn = drawn | operation.as_strategy(GenerationMode.NEGATIVE)
    names = [p.name for p in operation.path_parameters if p.name in ids]
    if not names:
        return drawn
    real = st.fixed_dictionaries({name: st.sampled_from(ids[name]) for name in names})

    @st.composite
    def placed(draw: st.DrawFn) -> Case[Any]:
        case: Case[Any] = draw(drawn)
        if draw(st.booleans()):
            case.path_parameters.update(draw(real))
        return case

    return placed()
