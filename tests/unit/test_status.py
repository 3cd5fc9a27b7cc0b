"""A status of another version can be read, and each reason has one heading in docs/conditions.md."""

import re
from pathlib import Path

from endpoint_operator.api.status import REASONS, Reason, parse_status

TEXT = (Path(__file__).parents[2] / "docs" / "conditions.md").read_text(encoding="utf-8")


def test_a_status_of_another_version_is_read_as_far_as_it_is_understood():
    assert parse_status({"application": "a", "fromTheFuture": 1}).application == "a"
    assert parse_status({"replicas": "many"}) == parse_status(None)
    assert parse_status({"replicas": "many", "application": "a"}).application == "a"


def test_conditions_of_others_and_unknown_ones_cost_nothing_else():
    ours = {
        "type": "Ready",
        "status": "True",
        "reason": "Serving",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    others = [ours | {"type": "example.com/Audited"}, {"type": "Ready?"}, "nonsense"]
    status = parse_status(
        {"application": "a", "conditions": [*others, ours], "lastGood": {"application": "x"}}
    )
    assert [condition.type for condition in status.conditions] == ["Ready"]
    assert status.last_good.application == "x"


def test_every_reason_has_a_heading():
    headings = re.findall(r"^## (\w+)$", TEXT, re.MULTILINE)
    assert sorted(headings) == sorted(Reason)


def test_every_reason_says_what_it_means_for_ready():
    assert REASONS.keys() == set(Reason) - {Reason.ACCEPTED}
