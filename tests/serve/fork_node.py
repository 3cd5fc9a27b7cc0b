"""A node of Ray as far as the fork server sees it: a raylet that lives, and workers that it starts."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from serve_app.contract import FORK_WORKERS_VARIABLE

SECONDS = 120

# Stands in for Ray's worker: tells what it is, then does what its last argument says until its input ends.
WORKER = """
import json, os, random, sys

def facts():
    modules = set(sys.modules)
    import ray, numpy, torch
    return {
        "pid": os.getpid(), "group": os.getpgrp(), "folder": os.getcwd(), "arguments": sys.argv[1:],
        "job": os.environ.get("RAY_JOB_ID"), "blas": os.environ.get("OPENBLAS_NUM_THREADS"),
        "has_torch": "torch" in modules, "has_serve": "ray.serve" in modules,
        "threads": threads, "cuda": torch.cuda.is_initialized(),
        "numbers": [
            ray.ObjectRef.from_random().hex(), random.random(),
            float(numpy.random.rand()), float(torch.rand(1)),
        ],
    }

threads = len(os.listdir("/proc/self/task"))
told = facts()
if sys.argv[-1].startswith("load="):
    from pathlib import Path
    from serve_app.contract import Task
    from serve_app.tasks import task_class
    from serve_app.engine.base import InputLimit
    from serve_app.engine.base import Progress
    model = task_class(Task.TEXT_CLASSIFICATION)(Path(sys.argv[-1].removeprefix("load=")), "float32")
    model.forward(model.encode("good", None, InputLimit(64, True)), Progress((), 0))
print(json.dumps(told), flush=True)
sys.stdin.read()
"""


class Worker:
    """One started worker, and what it told."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, "the worker ended without a word"
        self.told: dict[str, Any] = json.loads(line)
        self.forked = self.told["pid"] != process.pid

    def end(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        # The process that was started may live on as the fork server.
        if self.forked:
            wait_for(lambda: not psutil.pid_exists(self.told["pid"]))
        else:
            self._process.wait(SECONDS)


class Node:
    """Starts workers as the raylet does."""

    def __init__(self, folder: Path, raylet: int) -> None:
        self.folder = folder
        self._environment = {**os.environ, "RAY_RAYLET_PID": str(raylet), FORK_WORKERS_VARIABLE: "models"}
        self._script = folder / "ray" / "_private" / "workers" / "default_worker.py"
        self._script.parent.mkdir(parents=True)
        self._script.write_text(WORKER)
        (folder / "sockets").mkdir()
        (folder / "logs").mkdir()

    def start(self, *arguments: str, **environment: str) -> Worker:
        raylet = f"--raylet-name={self.folder}/sockets/raylet"
        return Worker(
            subprocess.Popen(
                [sys.executable, str(self._script), raylet, *arguments],
                env={**self._environment, **environment},
                cwd=self.folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )

    def start_with_torch(self, *arguments: str) -> Worker:
        """Start a worker as soon as the fork server has imported everything."""
        wait_for(lambda: "ready" in self.log())
        return self.start(*arguments)

    def log(self) -> str:
        log = self.folder / "logs" / "fork_server.log"
        return log.read_text() if log.exists() else ""

    def servers(self) -> list[psutil.Process]:
        """Return the processes of the fork server, without the workers."""
        found = []
        for process in psutil.process_iter(["cmdline", "name"]):
            command = process.info["cmdline"] or []
            if "serve_app.forkserver.server" in command and f"{self.folder}/sockets/raylet.f" in command:
                found.append(process)
        return found


def wait_for(condition, seconds: float = SECONDS):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.1)
    return value


@contextmanager
def node(folder: Path) -> Iterator[Node]:
    """Keep a node for the block; at its end, its raylet ends, and with it the fork server."""
    raylet = subprocess.Popen(["sleep", "3600"])
    here = Node(folder, raylet.pid)
    try:
        yield here
    finally:
        raylet.kill()
        raylet.wait()
        for process in here.servers():
            with suppress(psutil.Error):
                process.wait(SECONDS)
