"""Where the threads of a forward pass may run."""

import json
import os
import subprocess
import sys

import pytest
import torch

from serve_app.encoders.cpu_threads import granted_threads

CORES = sorted(os.sched_getaffinity(0))

# Threads of operations are made once in a process, so each case has a process of its own.
A_PASS = """
import json, os, sys, threading, torch
from serve_app.encoders.cpu_threads import use_threads

def threads():
    return {int(name) for name in os.listdir("/proc/self/task")}

def run_pass():
    before = threads()
    use_threads(int(sys.argv[1]))
    torch.zeros(10_000_000).add_(1)
    others = [sorted(os.sched_getaffinity(thread)) for thread in threads() - before]
    json.dump([sorted(os.sched_getaffinity(0)), others, torch.get_num_threads()], sys.stdout)

run = threading.Thread(target=run_pass)
run.start()
run.join()
assert len(os.sched_getaffinity(0)) > 1
"""

needs_cores = pytest.mark.skipif(len(CORES) < 2, reason="one core leaves nothing to choose")


def where_it_ran(count: int) -> list:
    """Return where the thread of a pass may run, where the others that it made may, and how many it has."""
    command = [sys.executable, "-c", A_PASS, str(count)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@needs_cores
def test_a_pass_on_all_cores_keeps_its_threads_apart():
    first, *rest = CORES
    own, others, count = where_it_ran(len(CORES))
    assert own == [first]
    # torch also makes a thread for another library, which has nothing to do here.
    assert others.count(rest) == len(rest)
    assert count == len(CORES)


@needs_cores
def test_a_pass_on_some_cores_runs_on_any():
    own, others, count = where_it_ran(1)
    assert all(each == CORES for each in [own, *others])
    assert count == 1


@pytest.mark.parametrize(
    ("granted", "expected"), [("3", 3), ("", None), ("0", None), ("many", None)], ids=repr
)
def test_the_threads_are_those_that_ray_grants(granted, expected, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", granted)
    assert granted_threads() == (expected or torch.get_num_threads())
