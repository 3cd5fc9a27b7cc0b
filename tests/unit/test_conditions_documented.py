"""Each reason has one heading in docs/conditions.md, and each heading is a reason."""

import re
from pathlib import Path

from endpoint_operator.api.status import REASONS, Reason

TEXT = (Path(__file__).parents[2] / "docs" / "conditions.md").read_text(encoding="utf-8")


def test_every_reason_has_a_heading():
    headings = re.findall(r"^## (\w+)$", TEXT, re.MULTILINE)
    assert sorted(headings) == sorted(Reason)


def test_every_reason_says_what_it_means_for_ready():
    assert REASONS.keys() == set(Reason) - {Reason.ACCEPTED}
