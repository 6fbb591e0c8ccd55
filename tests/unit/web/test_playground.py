"""The playground's choice of models: those that do not answer say so before they are asked."""

from __future__ import annotations

from pathlib import Path

from tests.platforms import BASE, add_base, first_caller, publish, run_to_running, start_job
from tests.unit.web.site import signed_in

from afina.service.gate import hold


def test_a_model_that_is_held_back_is_marked_where_it_is_chosen(tmp_path: Path) -> None:
    with signed_in(tmp_path / "data") as site:
        add_base(site.platform, BASE)
        caller = first_caller(site.platform)
        start_job(site.platform, caller, suffix="bard")
        (tmp_path / "scratch").mkdir()
        done = publish(site.platform, run_to_running(site.platform), tmp_path / "scratch")
        assert done.fine_tuned_model is not None
        for path in ("/playground", "/playground/table"):
            assert "· Held back</option>" not in site.ask("GET", path).text
        hold(site.platform, caller, done.fine_tuned_model)
        for path in ("/playground", "/playground/table"):
            assert "· Held back</option>" in site.ask("GET", path).text
