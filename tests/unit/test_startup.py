"""The parts of a replica's start, and its memory, as they are told."""

import json

import pytest

from serve_app.protocols import open_inference, open_inference_tensors
from serve_app.telemetry.memory import parse_rollup
from serve_app.telemetry.startup import StartupTimer, seconds_since_launch
from tests.unit.fake_model import ARGS, BatchEngine, FakeModel, UserConfig

ROLLUP = """\
556c5a4f2000-7ffd2f3a9000 ---p 00000000 00:00 0    [rollup]
Rss:              626688 kB
Pss:              177152 kB
Pss_Dirty:         90000 kB
SwapPss:               0 kB
"""


def test_parts_add_up_to_the_total():
    startup = StartupTimer(before=1.0)
    with startup.phase("load"):
        pass
    with pytest.raises(KeyError), startup.phase("warm_up"):
        raise KeyError
    report = startup.report()
    assert list(report) == ["process_seconds", "load_seconds", "warm_up_seconds", "total_seconds"]
    assert report["process_seconds"] == 1.0
    parts = [seconds for phase, seconds in report.items() if phase != "total_seconds"]
    assert report["total_seconds"] == pytest.approx(sum(parts), abs=0.002)


def test_a_part_of_a_phase_has_a_name_of_its_own():
    startup = StartupTimer(before=1.0)
    with startup.phase("load"):
        pass
    before = startup.report()
    startup.split("load", "prove", 0.25)
    report = startup.report()
    assert report["prove_seconds"] == 0.25
    assert report["load_seconds"] == pytest.approx(before["load_seconds"] - 0.25, abs=0.002)
    assert report["total_seconds"] == before["total_seconds"]


def test_the_log_names_the_parts():
    startup = StartupTimer(before=1.5)
    with startup.phase("load"):
        pass
    assert str(startup) == "1.50 s (process 1.50, load 0.00)"


@pytest.mark.parametrize(
    ("arguments", "seconds"),
    [
        (["worker.py", "--worker-launch-time-ms=1000500", "--node-id=1"], 1.5),
        (["worker.py", "--worker-launch-time-ms=9000000"], 0.0),
        (["worker.py", "--worker-launch-time-ms=soon"], 0.0),
        (["worker.py"], 0.0),
    ],
)
def test_a_workers_start_is_known_from_its_arguments(arguments, seconds):
    assert seconds_since_launch(arguments, now=1002.0) == pytest.approx(seconds)


def test_memory_is_read_in_bytes():
    assert parse_rollup(ROLLUP) == {"resident_bytes": 626688 * 1024, "proportional_bytes": 177152 * 1024}
    assert parse_rollup("") == {}


def test_the_metadata_tell_start_and_memory(monkeypatch):
    monkeypatch.setattr(open_inference_tensors, "memory_of_this_process", lambda: {"resident_bytes": 7})
    engine = BatchEngine(ARGS, FakeModel(), UserConfig())
    engine.cold_start = {"total_seconds": 1.2}
    facts = json.loads(open_inference.metadata(engine).body)["parameters"]
    assert facts["cold_start"] == {"total_seconds": 1.2}
    assert facts["memory"] == {"resident_bytes": 7}
