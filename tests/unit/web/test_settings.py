"""The settings page: what is typed is set, taken back where it is emptied, and kept where refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.platforms import BASE, add_base
from tests.unit.web.site import Site, signed_in

from afina.service.keys import authenticate
from afina.service.limits import list_rate_limits


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with signed_in(tmp_path) as site:
        yield site


def test_a_limit_that_is_emptied_is_none_any_more(site: Site) -> None:
    add_base(site.platform, BASE)
    caller = authenticate(site.platform, site.key)
    form = {"form_token": site.token(), "model": BASE}

    def limited() -> tuple[int | None, int | None]:
        found = list_rate_limits(site.platform, caller, caller.project_id)[0]
        return found.requests_per_minute, found.requests_per_day

    given = form | {"requests_per_minute": "60", "requests_per_day": "900"}
    assert site.ask("POST", "/settings/limits", data=given).status_code == 303
    assert limited() == (60, 900)
    given = form | {"requests_per_minute": "", "requests_per_day": "900"}
    assert site.ask("POST", "/settings/limits", data=given).status_code == 303
    assert limited() == (None, 900)


def test_a_refused_form_stands_there_as_it_was_typed(site: Site) -> None:
    token = {"form_token": site.token()}
    hook = {"name": "My hook", "url": "nowhere", "event": "batch.failed"}
    refused = site.ask("POST", "/settings/webhooks", data=token | hook)
    assert refused.status_code == 400
    assert 'value="My hook"' in refused.text
    assert 'value="nowhere"' in refused.text
    assert 'value="batch.failed" checked' in refused.text
    assert 'value="fine_tuning.job.failed" checked' not in refused.text
    person = token | {"email": "nobody", "role": "reader"}
    refused = site.ask("POST", "/settings/people", data=person)
    assert 'id="person-email"' in refused.text, "the page itself, not one of an error"
    assert 'value="nobody"' in refused.text


@pytest.mark.parametrize("place", ["keys", "webhooks", "projects", "people", "limits", "budget"])
def test_the_address_of_a_form_is_a_page_too(site: Site, place: str) -> None:
    assert 'id="keys"' in site.ask("GET", f"/settings/{place}").text
