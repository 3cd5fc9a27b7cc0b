"""The load generator: a process that sends texts to one URL and reports what came back.

Reads one JSON object from its standard input, a `Load` with the bodies, and writes one to its standard
output. Knows nothing of servers.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from endpoint_operator.load.closed import Sender, send_until
from endpoint_operator.load.connections import Connections
from endpoint_operator.load.timing import Summary, poisson_times, summarize

# A request that takes longer has failed.
PATIENCE_SECONDS: Final = 20.0
MOST_IN_FLIGHT: Final = 1024


@dataclass(frozen=True)
class Load:
    """What to send: by `clients` that each wait for their answer, or at `rate` whatever the answers do."""

    url: str
    clients: int = 0
    rate: float = 0.0
    warm_up_seconds: float = 1.0
    seconds: float = 5.0
    seed: int = 5


@dataclass(frozen=True)
class Report(Summary):
    """A summary with the client's own use of the processor, in cores."""

    client_cpu: float


async def run(load: Load, bodies: Sequence[bytes]) -> Report:
    """Send until the time is over, wait for the last answers, and report."""
    connections = Connections(load.url, PATIENCE_SECONDS, load.clients or MOST_IN_FLIGHT)
    sender = Sender(connections, bodies)
    begun = time.perf_counter()
    start, end = begun + load.warm_up_seconds, begun + load.warm_up_seconds + load.seconds
    cpu = asyncio.create_task(cpu_between(start, end))
    if load.clients:
        await send_until(sender, load.clients, end)
    else:
        await _open(sender, load, begun)
    connections.close()
    return Report(**asdict(summarize(sender.answered, start, end)), client_cpu=await cpu / load.seconds)


async def _open(sender: Sender, load: Load, begun: float) -> None:
    """Send at random times; a request that is sent late counts from when it should have been sent."""
    warm, end = load.warm_up_seconds, load.warm_up_seconds + load.seconds
    offsets = poisson_times(load.rate, 0, warm, load.seed) + poisson_times(load.rate, warm, end, load.seed)
    async with asyncio.TaskGroup() as group:
        for offset in offsets:
            await asyncio.sleep(begun + offset - time.perf_counter())
            group.create_task(sender.send(begun + offset))


async def cpu_between(start: float, end: float) -> float:
    await asyncio.sleep(start - time.perf_counter())
    before = time.process_time()
    await asyncio.sleep(end - time.perf_counter())
    return time.process_time() - before


def measure(load: Load, bodies: Sequence[str]) -> Report:
    """Run the load in a process of its own."""
    document = {"load": asdict(load), "bodies": list(bodies)}
    finished = subprocess.run(
        [sys.executable, "-m", "bench.load"],
        input=json.dumps(document),
        capture_output=True,
        text=True,
        check=False,
        timeout=load.warm_up_seconds + load.seconds + 2 * PATIENCE_SECONDS,
    )
    if finished.returncode:
        raise RuntimeError(f"the load generator failed: {finished.stderr.strip()[-500:]}")
    return Report(**json.loads(finished.stdout))


def main() -> None:
    """Do what standard input says."""
    document: dict[str, Any] = json.load(sys.stdin)
    bodies = [body.encode() for body in document["bodies"]]
    runner = asyncio.Runner(loop_factory=event_loop())
    with runner:
        report = runner.run(run(Load(**document["load"]), bodies))
    json.dump(asdict(report), sys.stdout)


def event_loop() -> Any:
    """Return the cheapest event loop that is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


if __name__ == "__main__":
    main()
