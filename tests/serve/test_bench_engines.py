"""The comparison of engines, with the one that needs no environment of its own."""

import pytest
from rich.console import Console

from bench.engines import LONE_TEXTS, greatest_difference, show, started
from bench.rows import FLOAT32, OURS
from bench.samples import sample


def test_an_engine_takes_turns_and_keeps_its_scores():
    console = Console(record=True, width=120)
    with started(OURS, FLOAT32, sample("sentiment"), console) as candidate:
        candidate.make_ready()
        candidate.take_turn()
        candidate.take_turn()
    assert [len(candidate.scores), len(candidate.lone_ms), len(candidate.batched_ms)] == [LONE_TEXTS, 2, 2]
    assert all(sum(row) == pytest.approx(1, abs=1e-5) for row in candidate.scores)
    show(console, [candidate])
    assert "0.0e+00" in console.export_text()


def test_an_engine_that_ends_says_why():
    why = pytest.raises(RuntimeError, match=r"^ours in float128 ended: [\s\S]*float128")
    with started(OURS, "float128", sample("sentiment"), Console()) as candidate, why:
        candidate.make_ready()


def test_scores_differ_by_the_greatest_of_all_differences():
    assert greatest_difference([[0.5, 0.5], [0.1, 0.9]], [[0.5, 0.5], [0.3, 0.7]]) == pytest.approx(0.2)
