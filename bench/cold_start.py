"""What it takes ours to start: a model added by a file, a further replica, and a second copy in memory."""

import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import httpx
import psutil
from rich.console import Console

from bench import samples
from bench.claims import ColdStart
from bench.processes import replicas_of, title_of
from bench.rows import FLOAT32
from bench.samples import BenchModel
from bench.servers import (
    MANIFESTS,
    Job,
    Machine,
    environment,
    process,
    run_command,
    wait_for_answer,
    write_manifest,
)
from endpoint_operator.local.ports import free_port

ADDED_MODELS: Final = 4
ADDED_REPLICAS: Final = 5
CHANGE_SECONDS: Final = 120.0
# Enough for each of two replicas to have touched all of its weights.
TOUCHES: Final = 32
BODY: Final = '{"text": "a quick look at a slow film"}'
# What the command says last before it watches its files.
FOLLOWING: Final = "Ctrl-C stops everything"
SETTLE_SECONDS: Final = 1.0
# What Serve's controller writes when a replica is ready.
READY: Final = re.compile(r"started successfully on node '\w+' after ([\d.]+)s")


@dataclass(frozen=True)
class Service:
    """A running `modelendpoint run` and its folder of manifests."""

    manifests: Path
    base_url: str
    started: "subprocess.Popen[bytes]"
    log: Path

    @property
    def process(self) -> psutil.Process:
        """The command that serves."""
        return psutil.Process(self.started.pid)

    def ask(self, name: str) -> None:
        """Send enough requests to reach every replica."""
        with httpx.Client(timeout=60, trust_env=False) as http:
            for _ in range(TOUCHES):
                http.post(self.url(name), content=BODY).raise_for_status()

    def wait(self, name: str) -> None:
        """Wait until the model answers."""
        wait_for_answer(self.url(name), BODY, self.started, self.log)

    def url(self, name: str) -> str:
        """Return where the model takes texts."""
        return f"{self.base_url}/v2/models/{name}/predict"

    def wait_for_replicas(self, name: str, count: int) -> list[float]:
        """Return the seconds that each replica took, by Serve's log, once there are `count`."""
        deadline = time.monotonic() + CHANGE_SECONDS
        while time.monotonic() < deadline:
            seconds = self._starts(name)
            if len(seconds) >= count:
                return seconds
            time.sleep(0.1)
        raise RuntimeError(f"{name} did not get {count} replicas in {CHANGE_SECONDS:.0f} s")

    def _starts(self, name: str) -> list[float]:
        found: list[float] = []
        for log in sorted(self._session().glob("logs/serve/controller_*.log")):
            lines = log.read_text(errors="replace").splitlines()
            matches = (READY.search(line) for line in lines if f"app='{name}'" in line)
            found += [float(match[1]) for match in matches if match]
        return found

    def _session(self) -> Path:
        for each in self.process.children(recursive=True):
            match = re.search(r"--session[-_]dir=(\S+)", title_of(each))
            if match:
                return Path(match[1])
        raise RuntimeError("Ray's session folder is not known")


@contextmanager
def serving(model: BenchModel, names: Sequence[str], machine: Machine, folder: Path) -> Iterator[Service]:
    """Serve `model` under each of the names."""
    manifests, log, port = folder / MANIFESTS, folder / "log", free_port()
    manifests.mkdir()
    job = Job(model, FLOAT32, machine)
    for name in names:
        write_manifest(manifests, name, job)
    command = run_command(manifests, port, model.folder.parent)
    with process(command, environment(job, port), log) as started:
        service = Service(manifests, f"http://127.0.0.1:{port}", started, log)
        for name in names:
            service.wait(name)
        _wait_until_it_follows(log)
        yield service


def _wait_until_it_follows(log: Path) -> None:
    """Wait for the command to watch its files, which it does once all models have settled."""
    deadline = time.monotonic() + CHANGE_SECONDS
    while FOLLOWING not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(SETTLE_SECONDS)


def measure(machine: Machine, console: Console) -> ColdStart:
    """Measure all of it."""
    answers, starts = _models_and_replicas(machine)
    console.print(f"seconds to the first answer: {answers}; from start to ready: {starts}")
    share = _second_copy(machine, console)
    return ColdStart(answers, starts, share)


def _models_and_replicas(machine: Machine) -> tuple[list[float], list[float]]:
    with TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        model = _copies(samples.sample("minilm"), folder)
        job = Job(model, FLOAT32, machine)
        with serving(model, ["first"], machine, folder) as service:
            answers = [_added(service, job, f"added-{number}") for number in range(ADDED_MODELS)]
            for count in range(2, ADDED_REPLICAS + 2):
                write_manifest(service.manifests, "first", job, replicas=count)
                starts = service.wait_for_replicas("first", count)
            return answers, starts[1:]


def _copies(model: BenchModel, folder: Path) -> BenchModel:
    """Copy the model, so that what is in the page cache is what was put there by serving it."""
    shutil.copytree(model.folder, folder / "models" / model.name)
    return BenchModel(model.name, folder / "models" / model.name, model.task)


def _added(service: Service, job: Job, name: str) -> float:
    """Return the seconds from writing the file to the first answer."""
    started = time.monotonic()
    write_manifest(service.manifests, name, job)
    service.wait(name)
    return round(time.monotonic() - started, 2)


def _second_copy(machine: Machine, console: Console) -> float:
    """Return what a second replica adds above one without a model, as a share of its weights."""
    large, small = samples.distilbert(), samples.nothing()
    weights = sum(file.stat().st_size for file in large.folder.glob("*.safetensors"))
    with (
        TemporaryDirectory(prefix="bench-") as name,
        serving(large, ["large"], machine, Path(name)) as service,
    ):
        write_manifest(service.manifests, "small", Job(small, FLOAT32, machine))
        service.wait_for_replicas("small", 1)
        before = _proportional(service, "large", "small")
        write_manifest(service.manifests, "small", Job(small, FLOAT32, machine), replicas=2)
        service.wait_for_replicas("small", 2)
        between = _proportional(service, "large", "small")
        write_manifest(service.manifests, "large", Job(large, FLOAT32, machine), replicas=2)
        service.wait_for_replicas("large", 2)
        after = _proportional(service, "large", "small")
    console.print(f"proportional bytes: {before}, with a second small {between}, with a second large {after}")
    return ((after - between) - (between - before)) / weights


def _proportional(service: Service, *names: str) -> int:
    """Return the proportional set size of all replicas, in bytes, after all of them were asked."""
    for name in names:
        service.ask(name)
    return sum(each.memory_full_info().pss for each in replicas_of(service.process))
