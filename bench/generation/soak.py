"""Does an hour of generation load at random leave memory flat? `python -m bench.generation.soak`.

Each minute, requests with long prompts come at random times, and beside them fewer whose clients leave in
the middle. Then the server is idle for some seconds, and its memory is read. Prints a line a minute and how
memory grew from minute 5 on, and writes bench/results/soak.json. Linux only.
"""

import argparse
import asyncio
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import linear_regression
from typing import Any, Final

import psutil
from rich.console import Console

from bench.__main__ import QUIET, describe
from bench.generation.load import Load, Report, measure, run
from bench.generation.prompts import LONG, make_prompts
from bench.generation.servers import BFLOAT16, OURS
from bench.processes import replicas_of
from bench.samples import chat
from bench.servers import Job, Machine, Running, dtype_of, running
from endpoint_operator.local.ray import detect_machine

RESULTS: Final = Path(__file__).parents[1] / "results" / "soak.json"
LOAD_SECONDS: Final = 60.0
# Enough for streams whose clients have left to end, and for what they held to be freed.
IDLE_SECONDS: Final = 5.0
# Of the rate of the clients that stay.
LEAVING_SHARE: Final = 0.25
# Most streams have begun by then, and none with 64 tokens has ended on a machine such as that of the figures.
LEAVING_SECONDS: Final = 1.0
# Before this minute, memory grows by what a server keeps once it has seen enough lengths and batches.
SETTLED: Final = 5
MIB: Final = 2**20


@dataclass(frozen=True)
class Options:
    """What the command line says; `rate` is in requests a second, of the clients that stay."""

    minutes: int
    rate: float
    dtype: str


@dataclass(frozen=True)
class Memory:
    """What the processes hold: unique set size of the replicas, proportional set size of all of them."""

    # Process ids: a replica that was replaced begins anew.
    replicas: tuple[int, ...]
    replica_mib: float
    all_mib: float


@dataclass(frozen=True)
class Minute:
    """What one minute of load was like, and what it left in memory."""

    minute: int
    # From the begin of the first load to the reading of the memory.
    hours: float
    # Of the clients that stay.
    requests: int
    failures: int
    problem: str
    tokens_per_s: float
    # Of the others: how many came, and how many of them did not see the end.
    leaving: int
    left: int
    replica_mib: float
    all_mib: float


@dataclass(frozen=True)
class Growth:
    """How memory grew: by a line through all minutes that count, and between the first and the last one."""

    mib_an_hour: float
    mib: float


def main() -> None:
    """Run the command line; raise RuntimeError if ours does not serve, or loses its replica."""
    options = _options()
    console = Console(width=None if os.isatty(1) else 150)
    machine = Machine(detect_machine().cpus, "cpu")
    facts = describe(machine)
    if facts["busy_before"] > QUIET:
        console.print(f"[yellow]others use {facts['busy_before']:.0%} of the processor[/yellow]")
    minutes: list[Minute] = []
    try:
        with running(OURS.server, Job(chat(), options.dtype, machine), console) as service:
            if (chosen := dtype_of(service)) != options.dtype:
                raise RuntimeError(f"it serves in {chosen} instead of {options.dtype}")
            for minute in soak(service, options):
                minutes.append(minute)
                console.print(line(minute), markup=False, highlight=False)
    finally:
        # What was measured before an interruption is worth keeping.
        if minutes:
            found = {"replica": growth(replica_points(minutes)), "all": growth(all_points(minutes))}
            for name, grown in found.items():
                console.print(conclusion(name, grown), markup=False, highlight=False)
            write(facts, options, minutes, found)


def _options() -> Options:
    parser = argparse.ArgumentParser(prog="python -m bench.generation.soak", description=__doc__)
    parser.add_argument("--minutes", type=int, default=60, help="of load; each takes some seconds more")
    parser.add_argument("--rate", type=float, default=0.5, help="requests a second whose clients stay")
    parser.add_argument("--dtype", choices=OURS.dtypes, default=BFLOAT16)
    arguments = parser.parse_args()
    if arguments.minutes < 1:
        parser.error(f"--minutes: got {arguments.minutes}, must be at least 1")
    if round(arguments.rate * LEAVING_SHARE * LOAD_SECONDS) < 1:
        parser.error(f"--rate: got {arguments.rate}, must be enough for one client a minute that leaves")
    return Options(arguments.minutes, arguments.rate, arguments.dtype)


def soak(service: Running, options: Options) -> Iterator[Minute]:
    """Yield each minute when its memory has been read; raise RuntimeError if another replica serves then."""
    command, name = psutil.Process(service.process.pid), service.job.model.name
    before = memory(command, name)
    started = time.monotonic()
    for number in range(1, options.minutes + 1):
        stayed, left = asyncio.run(_minute_of_load(service, options.rate, number))
        time.sleep(IDLE_SECONDS)
        after = memory(command, name)
        if not after.replicas or after.replicas != before.replicas:
            said = (service.folder / "log").read_text(errors="replace")[-2000:]
            raise RuntimeError(
                f"minute {number}: the processes of {name}'s replicas are {after.replicas} and were "
                f"{before.replicas}, so their memory cannot be compared; the server said:\n{said}"
            )
        yield Minute(
            number,
            (time.monotonic() - started) / 3600,
            stayed.streams,
            stayed.failures,
            stayed.problem,
            stayed.tokens_per_s,
            left.streams,
            left.failures,
            after.replica_mib,
            after.all_mib,
        )


async def _minute_of_load(service: Running, rate: float, number: int) -> tuple[Report, Report]:
    """Return what the clients saw that stay, and those that leave; raise RuntimeError if that fails."""
    # The prompts and times of both, and of each minute, are others.
    staying = _load(service, rate, seed=2 * number)
    load, bodies = _load(service, rate * LEAVING_SHARE, seed=2 * number + 1)
    # `measure` would give its process too little time to start, as it goes by the patience.
    leaving = run(replace(load, patience_seconds=LEAVING_SECONDS), [body.encode() for body in bodies])
    return await asyncio.gather(asyncio.to_thread(measure, *staying), leaving)


def _load(service: Running, rate: float, seed: int) -> tuple[Load, list[str]]:
    """Return a minute's load, and a body for each of its requests."""
    load = Load(service.url, rate=rate, warm_up_seconds=0.0, seconds=LOAD_SECONDS, seed=seed)
    return load, service.bodies(make_prompts(LONG, round(rate * LOAD_SECONDS), seed))


def memory(command: psutil.Process, name: str) -> Memory:
    """Read the memory of the model's replicas and of all processes; psutil.Error if a replica ends."""
    replicas = replicas_of(command, name)
    return Memory(
        tuple(sorted(each.pid for each in replicas)),
        sum(each.memory_full_info().uss for each in replicas) / MIB,
        sum(_proportional(each) for each in (command, *command.children(recursive=True))) / MIB,
    )


def _proportional(process: psutil.Process) -> int:
    """Return the proportional set size in bytes, 0 of a process that has ended since it was listed."""
    try:
        return int(process.memory_full_info().pss)
    except psutil.NoSuchProcess:
        return 0


def replica_points(minutes: Sequence[Minute]) -> list[tuple[float, float]]:
    """Return hours and MiB of the replicas."""
    return [(minute.hours, minute.replica_mib) for minute in minutes]


def all_points(minutes: Sequence[Minute]) -> list[tuple[float, float]]:
    """Return hours and MiB of all processes."""
    return [(minute.hours, minute.all_mib) for minute in minutes]


def growth(points: Sequence[tuple[float, float]]) -> Growth | None:
    """Return how memory grew, by the hours and MiB of each minute from the first on.

    Minutes before SETTLED do not count; None if fewer than two are left.
    """
    settled = points[SETTLED - 1 :]
    if len(settled) < 2:
        return None
    hours, sizes = zip(*settled, strict=True)
    return Growth(linear_regression(hours, sizes).slope, sizes[-1] - sizes[0])


def line(minute: Minute) -> str:
    """Return what is printed of a minute."""
    failures = f"{minute.failures} failures" + (f" ({minute.problem})" if minute.problem else "")
    return (
        f"minute {minute.minute}: {minute.requests} requests, {failures}, "
        f"{minute.tokens_per_s:.1f} tokens/s, {minute.left} of {minute.leaving} others left, "
        f"replica {minute.replica_mib:.1f} MiB, all {minute.all_mib:.1f} MiB"
    )


def conclusion(name: str, grown: Growth | None) -> str:
    """Return what is printed of the growth of the memory called `name`."""
    if grown is None:
        return f"{name}: nothing can be said before minute {SETTLED + 1}"
    return (
        f"{name}: {grown.mib_an_hour:+.2f} MiB an hour from minute {SETTLED} on, "
        f"{grown.mib:+.1f} MiB between minute {SETTLED} and the last one"
    )


def write(
    facts: dict[str, Any], options: Options, minutes: Sequence[Minute], found: dict[str, Growth | None]
) -> None:
    """Write the results."""
    stated = {
        "load_seconds": LOAD_SECONDS,
        "idle_seconds": IDLE_SECONDS,
        "leaving_rate": options.rate * LEAVING_SHARE,
        "leaving_seconds": LEAVING_SECONDS,
        "settled_minute": SETTLED,
    }
    document = {
        "machine": facts,
        "options": asdict(options) | stated,
        "growth": {name: asdict(grown) if grown else None for name, grown in found.items()},
        "minutes": [asdict(minute) for minute in minutes],
    }
    RESULTS.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
