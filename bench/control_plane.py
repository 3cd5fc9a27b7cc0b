"""Measure the operator against a real API server: writes, time, memory and bytes for more and more endpoints.

`python -m bench.control_plane` prints a table and writes bench/results/control_plane.json. KubeRay and Ray
are simulated (tests/harness/kuberay) with KubeRay's own cycle of 2 s, every model loads in one cycle, and
the operator runs as a process with its default settings.
"""

import argparse
import json
import os
import platform
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from hack.cluster.kubectl import Kubectl
from tests.harness.api_server.control_plane import client, control_plane
from tests.harness.api_server.crds import install_model_endpoints, install_ray_services
from tests.harness.builders import DEFAULT_MODEL
from tests.harness.kuberay.serve import runs
from tests.harness.scene import Scene, a_scene

RESULTS: Final = Path(__file__).parent / "results" / "control_plane.json"
SIZES: Final = (10, 100, 1000)
CYCLE_SECONDS: Final = 2.0
SINGLE_CHANGES: Final = 5
PATIENCE_SECONDS: Final = 600.0


@dataclass(frozen=True)
class Figures:
    """What one number of endpoints costs."""

    endpoints: int
    # The others found no room in the document.
    served: int
    seconds_to_apply: float
    # Both from the first endpoint that was applied.
    seconds_to_last_document: float
    seconds_to_all_settled: float
    document_writes: int
    document_bytes: int
    peak_mebibytes: float
    cpu_seconds: float
    # From the change of one endpoint to the document that has it.
    seconds_to_single_change: float


def measure(scene: Scene, count: int) -> Figures:
    """Apply `count` endpoints to a running operator, then change single ones."""
    scene.ray.outcomes[DEFAULT_MODEL["uri"]] = runs(after=1)
    scene.operator.start()
    scene.until(lambda: scene.service.condition("Ready")[0] == "True", PATIENCE_SECONDS)
    before, computed = len(scene.writes), scene.operator.cpu_seconds
    names = [f"model-{number:04}" for number in range(count)]
    with peak_memory(scene) as peak:
        started = time.monotonic()
        scene.create_many(names)
        applied = time.monotonic()
        scene.until(lambda: all(map(is_settled, scene.endpoints())), PATIENCE_SECONDS)
        settled = time.monotonic()
    writes, computed = scene.writes[before:], scene.operator.cpu_seconds - computed
    changes = [seconds_to_change(scene, names[number]) for number in range(SINGLE_CHANGES)]
    return Figures(
        endpoints=count,
        served=len(scene.service.entries) - 1,
        seconds_to_apply=applied - started,
        seconds_to_last_document=writes[-1].at - started,
        seconds_to_all_settled=settled - started,
        document_writes=len(writes),
        document_bytes=len(scene.service.document.encode()),
        peak_mebibytes=peak() / 2**20,
        cpu_seconds=computed,
        seconds_to_single_change=statistics.median(changes),
    )


def is_settled(stored: dict[str, Any]) -> bool:
    """Return whether an endpoint is Ready, or will not be before somebody does something."""
    conditions = {each["type"]: each["status"] for each in stored.get("status", {}).get("conditions", [])}
    return "True" in (conditions.get("Ready"), conditions.get("Stalled"))


def seconds_to_change(scene: Scene, name: str) -> float:
    """Change one endpoint and return how long it takes until the document has it."""
    before, started = len(scene.writes), time.monotonic()
    scene.change(name, limits={"maxQueuedRequests": 77})
    scene.until(lambda: len(scene.writes) > before, PATIENCE_SECONDS)
    return scene.writes[-1].at - started


@contextmanager
def peak_memory(scene: Scene) -> Iterator[Callable[[], int]]:
    """Watch the operator's resident memory; what is yielded returns the most that it had."""
    ended = threading.Event()
    seen = [scene.operator.resident_bytes]

    def watch() -> None:
        while not ended.wait(0.1):
            seen.append(scene.operator.resident_bytes)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield lambda: max(seen)
    finally:
        ended.set()
        thread.join()


def run(sizes: Sequence[int]) -> list[Figures]:
    """Measure each size in a namespace of its own."""
    figures = []
    with control_plane() as server, client(server) as http:
        http.timeout = 60
        install_model_endpoints(Kubectl(server))
        install_ray_services(Kubectl(server))
        for count in sizes:
            namespace = f"bench-{count}"
            http.post("/api/v1/namespaces", json={"metadata": {"name": namespace}}).raise_for_status()
            with (
                TemporaryDirectory() as folder,
                a_scene(server, http, namespace, Path(folder), CYCLE_SECONDS, settings={}) as scene,
            ):
                figures.append(measure(scene, count))
    return figures


def show(figures: Sequence[Figures]) -> None:
    """Print one column a size."""
    table = Table("", *(f"{each.endpoints}" for each in figures))
    for name in list(asdict(figures[0]))[1:]:
        values = [getattr(each, name) for each in figures]
        shown = [f"{value:.1f}" if isinstance(value, float) else f"{value:,}" for value in values]
        table.add_row(name.replace("_", " "), *shown)
    Console().print(table)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.control_plane", description=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=list(SIZES), help="numbers of endpoints")
    figures = run(parser.parse_args().sizes)
    show(figures)
    machine = {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine()}
    RESULTS.parent.mkdir(exist_ok=True)
    document = {"machine": machine, "figures": [asdict(each) for each in figures]}
    RESULTS.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
