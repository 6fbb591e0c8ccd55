"""A base that cannot be loaded is refused in words for its user."""

from __future__ import annotations

from pathlib import Path

import pytest

from afina.errors import BaseRefused
from afina.model.base import load_base


def test_a_base_that_is_gone_is_called_gone_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(BaseRefused) as refused:
        load_base(tmp_path / "models" / "tiny", "fp32")
    assert refused.value.message == "The base model tiny is no longer on this machine."
    assert refused.value.remedy is not None
    assert "afina models pull" in refused.value.remedy
