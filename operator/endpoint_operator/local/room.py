"""Whether what is to be served has room on this machine: memory, places for replicas, temporary files."""

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from endpoint_operator.api.profiles import LocalMachine, UnfitResourcesError
from endpoint_operator.api.types import ModelEndpoint
from endpoint_operator.serveconfig.compiler import GATEWAY_CPUS

# Models share the CPU like threads. Ray's number of CPUs only limits how many replicas it schedules.
LOGICAL_CPUS_PER_CORE: Final = 16
# Ray's session folder has some 2 MB at the start; its logs and HAProxy's files follow.
TEMPORARY_BYTES: Final = 32 * 2**20


class NoRoomError(Exception):
    """Something does not fit this machine; the sentence says what, and what to do."""


def logical_cpus(machine: LocalMachine) -> int:
    """Return the number of CPUs that Ray is told this machine has."""
    return machine.cpus * LOGICAL_CPUS_PER_CORE


def require_room(endpoints: Sequence[ModelEndpoint], machine: LocalMachine) -> None:
    """Raise NoRoomError if no endpoint fits this machine, or if all together do not fit."""
    memory, cpus, replicas, unfit = 0, 0.0, 0, []
    for endpoint in endpoints:
        try:
            placement = machine.place(endpoint.spec.resources)
        except UnfitResourcesError as error:
            unfit.append(f"{endpoint.name}: {error}")
            continue
        if not endpoint.spec.suspend:
            count = max(1, endpoint.spec.scaling.min_replicas)
            replicas += count
            memory += placement.memory_bytes * count
            cpus += placement.cpus * count
    if unfit and len(unfit) == len(endpoints):
        raise NoRoomError(f"no endpoint fits this machine; {unfit[0]}")
    if memory > machine.memory_bytes:
        raise NoRoomError(
            f"these endpoints ask for {memory / 2**30:.1f}Gi of memory and this machine has "
            f"{machine.memory_bytes / 2**30:.1f}Gi free; serve fewer, or lower spec.resources.memory"
        )
    places = logical_cpus(machine) - GATEWAY_CPUS
    if cpus > places:
        raise NoRoomError(
            f"these endpoints ask for {replicas} replicas with {cpus:g} CPUs and this machine has places for "
            f"{places:g}, {LOGICAL_CPUS_PER_CORE} for each core; serve fewer, or lower "
            "spec.resources.cpus or spec.scaling.minReplicas"
        )


def require_temporary_files() -> None:
    """Raise NoRoomError if Ray cannot keep its session, sockets and logs."""
    folder = _temporary_folder()
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
        free = os.statvfs(folder)
    except OSError as error:
        raise NoRoomError(
            f"no file can be made in {folder}: {error.strerror}; set RAY_TMPDIR to another folder"
        ) from error
    if free.f_bavail * free.f_frsize < TEMPORARY_BYTES:
        raise NoRoomError(
            f"{folder} has {free.f_bavail * free.f_frsize / 2**20:.1f}Mi free and Ray needs "
            f"{TEMPORARY_BYTES / 2**20:g}Mi there; make room, or set RAY_TMPDIR to another folder"
        )


def _temporary_folder() -> Path:
    """Return the folder in which Ray makes its own, by the rules of `ray._common.utils`."""
    if "RAY_TMPDIR" in os.environ:
        return Path(os.environ["RAY_TMPDIR"])
    if sys.platform == "linux" and "TMPDIR" in os.environ:
        return Path(os.environ["TMPDIR"])
    return Path("/tmp")
