"""A status of another version can be read, and each reason has one heading in docs/conditions.md."""

import re
from pathlib import Path

from endpoint_operator.api.status import REASONS, Reason, parse_status

TEXT = (Path(__file__).parents[2] / "docs" / "conditions.md").read_text(encoding="utf-8")


def test_a_status_of_another_version_is_read_as_far_as_it_is_understood():
    assert parse_status({"application": "a", "fromTheFuture": 1}).application == "a"
    assert parse_status({"replicas": "many"}) == parse_status(None)


def test_every_reason_has_a_heading():
    headings = re.findall(r"^## (\w+)$", TEXT, re.MULTILINE)
    assert sorted(headings) == sorted(Reason)


def test_every_reason_says_what_it_means_for_ready():
    assert REASONS.keys() == set(Reason) - {Reason.ACCEPTED}
