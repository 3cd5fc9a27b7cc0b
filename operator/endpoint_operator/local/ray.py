"""Ray on this machine, started or joined, and the REST interface by which Serve takes its config.

The config goes the way KubeRay sends it, by PUT to the dashboard, so that both meet the same checks.
"""

import importlib.util
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import httpx
import psutil

from endpoint_operator.api.profiles import Machine
from endpoint_operator.local.ports import free_port, require_free
from serve_app.contract import FORK_WORKERS_VARIABLE, ForkWorkers
from serve_app.failure import cause_of

APPLICATIONS_PATH: Final = "/api/serve/applications/"
# Serve answers a PUT when it has stored the config, which takes seconds while Ray is starting.
REQUEST_TIMEOUT_SECONDS: Final = 60.0

# Longer than the longest graceful shutdown that a default endpoint has.
STOP_TIMEOUT_SECONDS: Final = 60.0

OBJECT_STORE_BYTES: Final = 128 * 2**20
# Models share the processor as threads do; Ray's CPU count is only what it admits.
LOGICAL_CPUS_PER_CORE: Final = 16

# Flags of the data path that a cluster has too; Ray reads them at import, in every process.
_SERVE_FLAGS: Final[Mapping[str, str]] = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_PROXY_USE_GRPC": "1",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    FORK_WORKERS_VARIABLE: ForkWorkers.MODELS.value,
}
# Further settings for one's own machine.
_LOCAL_FLAGS: Final[Mapping[str, str]] = {
    # Ray's workers yield to all else by default, and all threads of a model wait for the one that yields.
    "RAY_worker_niceness": "0",
    # Serve's controller looks at everything ten times a second by default; with Ray's answers that is a third
    # of what an idle service uses.
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.25",
    "RAY_USAGE_STATS_ENABLED": "0",
    # A replica that asked for no accelerator sees none.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


class RayUnavailableError(Exception):
    """Ray cannot be started or joined, or refuses what it is sent."""


class ServeClient:
    """Serve's REST interface at the address of a Ray dashboard."""

    def __init__(self, dashboard_url: str, token: str | None) -> None:
        self.url = dashboard_url
        self.token = token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(
            base_url=dashboard_url, headers=headers, timeout=REQUEST_TIMEOUT_SECONDS, trust_env=False
        )

    def put(self, document: str) -> None:
        """Make `document` Serve's whole configuration."""
        self._send("PUT", json.loads(document))

    def details(self) -> dict[str, Any]:
        """Return Serve's own account of its applications."""
        details: dict[str, Any] = self._send("GET").json()
        return details

    def http_url(self) -> str:
        """Return the address at which the models answer; Serve must be running."""
        options = self.details()["http_options"]
        host = "localhost" if options["host"] in ("127.0.0.1", "0.0.0.0", "::") else options["host"]
        return f"http://{host}:{options['port']}"

    def delete_all(self) -> None:
        """Shut Serve down: replicas finish what they have and leave."""
        self._send("DELETE")

    def _send(self, method: str, content: Any = None) -> httpx.Response:
        try:
            response = self._http.request(method, APPLICATIONS_PATH, json=content)
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise RayUnavailableError(f"Ray at {self.url} does not answer: {reason}") from error
        if response.is_error:
            reason = cause_of(response.text) or response.reason_phrase
            raise RayUnavailableError(f"Ray at {self.url} refused a {method}: {reason}")
        return response


def this_machine() -> Machine:
    """Return the cores, free memory and accelerators of this machine or container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    accelerators = len(list(Path("/dev").glob("nvidia[0-9]*")))
    return Machine(cores, _free_memory(), accelerators)


def _free_memory() -> int:
    free = int(psutil.virtual_memory().available)
    for limit_file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            free = min(free, int(Path(limit_file).read_text()))
    return free


def require_free_port(host: str, port: int) -> None:
    """Raise RayUnavailableError if another program listens on `port`."""
    try:
        require_free(host, port)
    except OSError as error:
        raise RayUnavailableError(
            f"port {port} cannot be used: {error.strerror}; choose another with --port"
        ) from error


def require_ray() -> None:
    """Raise RayUnavailableError if Ray is not installed beside this command."""
    if importlib.util.find_spec("ray") is None:
        raise RayUnavailableError("Ray is not installed here: pip install 'model-endpoints[serve]'")


@contextmanager
def started_ray(machine: Machine, host: str, port: int) -> Iterator[ServeClient]:
    """Start Ray and Serve here; at the end, drain the replicas and stop all that was started."""
    token = secrets.token_hex(32)
    process = subprocess.Popen(
        [sys.executable, "-m", "endpoint_operator.local.ray_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # What Ray has to say is in its log files too.
        stderr=subprocess.DEVNULL,
        env=os.environ | _environment(token),
        start_new_session=True,
        text=True,
    )
    try:
        dashboard = _dashboard_of(process, _ray_settings(machine, host, port))
        yield ServeClient(dashboard, token)
    finally:
        _end(process)


def _ray_settings(machine: Machine, host: str, port: int) -> dict[str, Any]:
    return {
        "cpus": machine.cpus * LOGICAL_CPUS_PER_CORE,
        "accelerators": machine.accelerators,
        "memory_bytes": machine.memory_bytes,
        "object_store_bytes": OBJECT_STORE_BYTES,
        "host": host,
        "port": port,
    }


def _dashboard_of(process: "subprocess.Popen[str]", settings: dict[str, Any]) -> str:
    """Return the URL that the Ray process answers with; raise RayUnavailableError if it gives none."""
    assert process.stdin is not None
    assert process.stdout is not None
    print(json.dumps(settings), file=process.stdin, flush=True)
    line = process.stdout.readline()
    answer = json.loads(line) if line else {"error": f"its process ended with status {process.wait()}"}
    if "error" in answer:
        raise RayUnavailableError(f"Ray could not be started: {answer['error'][:400]}")
    return str(answer["dashboard"])


def _end(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(STOP_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def joined_ray(dashboard_url: str) -> Iterator[ServeClient]:
    """Use the Ray whose dashboard is at `dashboard_url`; at the end, remove what was deployed.

    Raises RayUnavailableError if it serves applications already: a new config would remove them.
    """
    client = ServeClient(dashboard_url, os.environ.get("RAY_AUTH_TOKEN"))
    present = sorted(client.details()["applications"])
    if present:
        raise RayUnavailableError(
            f"Ray at {dashboard_url} already serves {', '.join(present)}; stop those first"
        )
    try:
        yield client
    finally:
        client.delete_all()


def _environment(token: str) -> dict[str, str]:
    """Return the variables for Ray's processes; what the user has set stays."""
    flags = dict(_LOCAL_FLAGS)
    # HAProxy comes with ray[serve] on Linux only; elsewhere Serve's own proxy does its work.
    if sys.platform == "linux":
        flags |= _SERVE_FLAGS
        flags |= _our_haproxy()
        # Fixed ports would clash with a second service on this machine.
        flags |= {
            "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        }
    # Another token than ours would lock us out of the Ray that we start.
    authentication = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    return {name: os.environ.get(name, value) for name, value in flags.items()} | authentication


def _our_haproxy() -> dict[str, str]:
    """Return the variable that names the command of `serve_app.haproxy`, if that is installed."""
    places = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    command = shutil.which("model-endpoints-haproxy", path=os.pathsep.join(places))
    return {"RAY_SERVE_HAPROXY_BINARY_PATH": command} if command else {}
