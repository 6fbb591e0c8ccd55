"""A model as a person reads it: a few lines, the proof among them in one sentence. `--json` has all
of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from afina.cli.terminal import at

_SAID: Final = frozenset(
    {"id", "owned_by", "kind", "base_id", "manifest", "created_at", "job_id", "step", "state"}
    | {"parity", "template_sha256", "rendered_at", "files"}
)
"""What `tuned_facts` says in its own words; whatever else the server tells follows as it is."""
_HASH: Final = 12
"""Characters of a hash that a person compares."""


def tuned_facts(model: Mapping[str, Any]) -> dict[str, str]:
    """Name and value of each line for a tuned model."""
    made = at(model["created_at"])
    step = model.get("step")
    snapshot = "" if step is None else f", the snapshot of step {step}"
    facts = {
        "id": str(model["id"]),
        "base": str(model.get("base_id")),
        "made": f"{made} by {model.get('job_id') or 'a job that is deleted'}{snapshot}",
        "state": str(model.get("state")),
        "parity": _proof(model.get("parity")),
        "files": ", ".join(model.get("files") or ()) or "–",
        "template": str(model.get("template_sha256") or "–")[:_HASH],
    }
    if model.get("rendered_at"):
        facts["its day"] = f"{model['rendered_at']}, which its template writes into prompts"
    rest = {key: value for key, value in model.items() if key not in _SAID}
    return facts | dict(flat(rest))


def _proof(parity: Mapping[str, Any] | None) -> str:
    if not parity:
        return "–"
    if not {"passed", "mean_kl", "agreement", "positions"} <= parity.keys():
        return "; ".join(f"{name} {value}" for name, value in flat(parity))
    verdict = "holds" if parity["passed"] else "FAILED"
    reasons = "".join(f"; {reason}" for reason in parity.get("reasons") or ())
    engine = parity.get("engine", "afina")
    by = "" if engine == "afina" else f", by {engine}"
    return (
        f"{verdict}: over {parity['positions']} positions in {parity.get('engine_precision')}{by} "
        f"the served model differs from the trained one by {parity['mean_kl']:.2g} nats "
        f"(limit {parity.get('mean_kl_limit')}) and picks the same token "
        f"{parity['agreement']:.1%} of the time{reasons}"
    )


def flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested objects as lines: `context tokens  2048`."""
    lines: list[tuple[str, str]] = []
    for key, item in value.items():
        name = f"{prefix}{key.replace('_', ' ')}"
        if isinstance(item, dict):
            lines += flat(item, f"{name} ")
        elif isinstance(item, list) and all(not isinstance(part, dict | list) for part in item):
            lines.append((name, ", ".join(str(part) for part in item) or "–"))
        elif isinstance(item, list):
            lines.append((name, f"{len(item)} entries"))
        elif key.endswith("_at") or key == "created":
            lines.append((name, at(item)))
        elif isinstance(item, float):
            lines.append((name, f"{item:.4g}"))
        else:
            lines.append((name, "–" if item is None else str(item)))
    return lines
