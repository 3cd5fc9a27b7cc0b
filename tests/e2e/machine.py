"""What a cluster could leave on the machine: processes, mounts, network devices, rules, control groups."""

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

# Of an engine and its containers; other tests run control planes of their own beside this one.
PROCESSES = {
    "dockerd",
    "docker-proxy",
    "containerd",
    "containerd-shim",
    "runc",
    "systemd",
    "kubelet",
    "conmon",
}
CGROUPS = Path("/sys/fs/cgroup")


def snapshot():
    """Return how often each such thing is there, under a name that says what it is."""
    return Counter([*_processes(), *_mounts(), *_devices(), *_rules(), *_cgroups()])


def _processes():
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = path.read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue  # it has just ended
        # A zombie has ended; its adopter has not yet looked.
        if name in PROCESSES and rest.split()[0] != "Z":
            yield f"process {name}"


def _mounts():
    for line in Path("/proc/mounts").read_text().splitlines():
        yield f"mount {line.split()[1]}"


def _devices():
    for path in Path("/sys/class/net").iterdir():
        yield f"network device {path.name}"


def _rules():
    for program in ("iptables-save", "ip6tables-save"):
        # Not on a machine that never had an engine, and not before the first one is installed.
        if shutil.which(program) is None:
            continue
        saved = subprocess.run([program], capture_output=True, text=True, check=True).stdout
        for line in saved.splitlines():
            # Built-in chains come with their table, which stays when it is empty again.
            if line.startswith("-A") or re.match(r":\S+ -", line):
                yield f"{program}: {re.sub(r' .[0-9]+:[0-9]+.$', '', line)}"


def _cgroups():
    for path in CGROUPS.rglob("*/"):
        yield f"control group {path}"
