"""The operator as a process of its own, with its own account, a profiles file and short deadlines."""

import copy
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
import yaml

from endpoint_operator.api.profiles import ClusterProfiles, parse_profiles
from endpoint_operator.local.ports import free_port
from tests.harness.processes import Program, running

# As the chart mounts them.
PROFILES: Final[dict[str, Any]] = {
    "profiles": [
        {"name": "cpu", "cpus": 8, "memory": "16Gi"},
        {"name": "gpu-t4", "accelerators": 4, "cpus": 16, "memory": "64Gi"},
    ]
}

# A tenth of what is usual on a cluster, or less: what they mean does not depend on how long they are.
SHORT: Final = {
    "DEBOUNCE_SECONDS": "0.2",
    "DEBOUNCE_LIMIT_SECONDS": "2",
    "RESYNC_SECONDS": "5",
    "LIVENESS_SECONDS": "8",
    "REQUEST_TIMEOUT_SECONDS": "3",
    # KubeRay's cycle is 0.1 s here.
    "SETTLE_SECONDS": "0.3",
    "FAILED_SECONDS": "2",
    "BEHIND_SECONDS": "2",
    "MISSING_SECONDS": "2",
    "UNSCHEDULABLE_SECONDS": "1",
    "RETRY_SECONDS": "10",
    "RETRY_LIMIT_SECONDS": "40",
    "SERVE_API_SECONDS": "1",
}


class Operator:
    """Starts, ends and kills `python -m endpoint_operator`; its output goes to one file a start."""

    def __init__(self, folder: Path, kubeconfig: Path, namespace: str, settings: Mapping[str, str]) -> None:
        self._folder = folder
        self._starts: list[Program] = []
        self._process = ExitStack()
        self._profiles = copy.deepcopy(PROFILES)
        self._port = free_port()
        self._kubeconfig = kubeconfig
        self._write_profiles()
        self.settings = settings
        self._settings = {
            "NAMESPACE": namespace,
            "RAY_SERVICE": "ray",
            "PROFILES_FILE": str(folder / "profiles.yaml"),
            "HTTP_PORT": str(self._port),
            **settings,
        }

    def start(self) -> None:
        """Start another process."""
        log = self._folder / f"operator-{len(self._starts) + 1}.log"
        settings = [f"OPERATOR_{name}={value}" for name, value in self._settings.items()]
        command = ["env", f"KUBECONFIG={self._kubeconfig}", *settings]
        command += [sys.executable, "-m", "endpoint_operator"]
        self._starts.append(self._process.enter_context(running("operator", command, log)))

    def kill(self) -> None:
        """End it as the kernel would: now, in the middle of anything."""
        self._process.close()

    def terminate(self, seconds: float) -> int:
        """Ask it to end, as Kubernetes does, and return its exit status."""
        self._process_of_now.send_signal(signal.SIGTERM)
        status = self._process_of_now.wait(seconds)
        self._process.close()
        return status

    def freeze(self) -> None:
        """Stop it where it is, as a machine that has no time for it."""
        self._process_of_now.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._process_of_now.send_signal(signal.SIGCONT)

    @property
    def exit_status(self) -> int | None:
        """How it has ended; None while it runs."""
        return self._process_of_now.poll()

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return bool(self._starts) and not self._starts[-1].ended()

    @property
    def resident_bytes(self) -> int:
        """Memory that it has now."""
        return int(psutil.Process(self._process_of_now.pid).memory_info().rss)

    @property
    def cpu_seconds(self) -> float:
        """Time that it has computed since its start."""
        times = psutil.Process(self._process_of_now.pid).cpu_times()
        return float(times.user + times.system)

    def is_alive(self) -> bool:
        """Return what Kubernetes takes its liveness probe for."""
        try:
            return self._get("/healthz").is_success
        except httpx.TransportError:
            return False

    def metrics(self) -> str:
        """Return what Prometheus reads."""
        return self._get("/metrics").raise_for_status().text

    def add_profile(self, profile: dict[str, Any]) -> None:
        """Append a profile to the file of profiles."""
        self._profiles["profiles"].append(profile)
        self._write_profiles()

    def allow_sources(self, *rules: str) -> None:
        """Write into the same file from where models may come; everywhere without rules."""
        self._profiles["sources"] = {"allow": list(rules)}
        self._write_profiles()

    @property
    def profiles(self) -> ClusterProfiles:
        """The profiles that it was given."""
        return parse_profiles(self._profiles)

    def output(self) -> str:
        """Return the end of what the last starts wrote."""
        return "\n".join(program.output(60) for program in self._starts[-3:])

    def _get(self, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self._port}{path}", timeout=2, trust_env=False)

    def _write_profiles(self) -> None:
        # As a ConfigMap's file changes: from one whole content to the next.
        partial = self._folder / "profiles.partial"
        partial.write_text(yaml.safe_dump(self._profiles))
        os.replace(partial, self._folder / "profiles.yaml")

    @property
    def _process_of_now(self) -> subprocess.Popen[bytes]:
        return self._starts[-1].process
