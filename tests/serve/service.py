"""A real `modelendpoint run` in a process of its own, as a person would start it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from bench.processes import replicas_of
from endpoint_operator.local.ports import free_port

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "models" / "build"
SAMPLES = ROOT / "manifests" / "samples"

# A request that every text model answers, with the sample's label POSITIVE.
GOOD = {"text": "I love this product"}

START_SECONDS = 240
STOP_SECONDS = 90
# A replica needs up to 15 seconds for its imports on two cores, more while others start too.
CHANGE_SECONDS = 240


def manifest(name: str, uri: str, task: str, **spec: Any) -> dict[str, Any]:
    model = {"uri": uri, "task": task, **spec.pop("model", {})}
    return {
        "apiVersion": "serving.modelendpoint.dev/v1alpha1",
        "kind": "ModelEndpoint",
        "metadata": {"name": name},
        "spec": {"model": model, "resources": {"memory": "1Gi"}, **spec},
    }


class Service:
    """The running command, its folder of manifests, and a client for it."""

    def __init__(
        self, folder: Path, port: int, grpc_port: int, process: subprocess.Popen[bytes], log: Path
    ) -> None:
        self.folder = folder
        self.port = port
        self.grpc_port = grpc_port
        self.process = process
        self.log = log
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def output(self) -> str:
        return self.log.read_text()

    def write(self, file: str, *manifests: Mapping[str, Any]) -> None:
        (self.folder / file).write_text(yaml.safe_dump_all(manifests))

    def remove(self, file: str) -> None:
        (self.folder / file).unlink()

    def models(self) -> dict[str, dict[str, Any]]:
        return {model["name"]: model for model in self.http.get("/v2/models").json()["models"]}

    def replica_pids(self, name: str) -> list[int]:
        command = psutil.Process(self.process.pid)
        return sorted(replica.pid for replica in replicas_of(command, f"{name}:Model"))

    def wait_for(self, what: str, condition, seconds: float = CHANGE_SECONDS):
        """Return the first true value of `condition`; fail with the command's output if none comes."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            value = condition()
            if value:
                return value
            time.sleep(0.2)
        raise AssertionError(f"{what} did not come within {seconds} s; the command said:\n{self.output()}")

    def wait_ready(self, name: str) -> None:
        self.wait_for(f"{name} ready", lambda: self.models().get(name, {}).get("state") == "RUNNING")

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Signal the whole process group, as Ctrl-C in a terminal does; return the exit code."""
        os.killpg(self.process.pid, number)
        return self.process.wait(STOP_SECONDS)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "endpoint_operator.cli.main", *arguments]


def free_ports() -> list[str]:
    """Return the options with free ports for the command."""
    return ["--port", str(free_port()), "--grpc-port", str(free_port())]


@contextmanager
def running(folder: Path, *options: str, port: int | None = None) -> Iterator[Service]:
    """Run the manifests of `folder` until the end of the block; nothing is left behind."""
    port, grpc_port = port or free_port(), free_port()
    log = folder.parent / f"{folder.name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command("run", str(folder), "--port", str(port), "--grpc-port", str(grpc_port), *options),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    service = Service(folder, port, grpc_port, process, log)
    try:
        service.wait_for("the start", lambda: _started(service), START_SECONDS)
        yield service
    finally:
        service.http.close()
        if process.poll() is None:
            service.stop()


def _started(service: Service) -> bool:
    if service.process.poll() is not None:
        raise AssertionError(f"the command ended:\n{service.output()}")
    return "Ctrl-C stops everything" in service.output()
