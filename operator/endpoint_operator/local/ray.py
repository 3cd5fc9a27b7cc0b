"""Ray on this machine: what the machine has, and starting or joining a Ray."""

import errno
import importlib.util
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import psutil

from endpoint_operator.api.profiles import LocalMachine
from endpoint_operator.local.ports import free_port, range_of_its_own, require_free
from endpoint_operator.local.replica_lines import printed_lines
from endpoint_operator.local.room import logical_cpus
from endpoint_operator.local.serve_client import RayUnavailableError, ServeClient
from serve_app.contract import FORK_WORKERS_VARIABLE, LINES_VARIABLE, OPEN_USAGE_VARIABLE, ForkWorkers

# Longer than the graceful shutdown of an endpoint with default settings.
STOP_TIMEOUT_SECONDS: Final = 60.0

OBJECT_STORE_BYTES: Final = 128 * 2**20
# How long processes that were told to end at once may take.
KILL_TIMEOUT_SECONDS: Final = 10.0

# The flags of the data path that the chart sets on a cluster; every Ray process reads them at import.
_SERVE_FLAGS: Final[Mapping[str, str]] = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
    # HAProxy reads the model's name in bodies of up to so many bytes; by default, 15 KiB.
    "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(256 * 2**10),
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_PROXY_USE_GRPC": "1",
    # Answers through the gateway may be as large as others; by default, up to 4 MiB.
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(64 * 2**20),
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    "RAY_SERVE_CONTROLLER_CALLBACK_IMPORT_PATH": "serve_app.recovery.prepare",
    FORK_WORKERS_VARIABLE: ForkWorkers.MODELS.value,
}
# Between which ports the gRPC servers of replicas are, the last one included.
_GRPC_PORTS: Final = ("RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT", "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT")
# Further settings for a local machine.
_LOCAL_FLAGS: Final[Mapping[str, str]] = {
    # By default, Ray's workers have the lowest priority. All threads of a model then wait for the one that
    # another program has preempted.
    "RAY_worker_niceness": "0",
    # By default, Serve's controller runs its loop ten times a second. Together with Ray's answers, that is a
    # third of the CPU time of an idle service.
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.25",
    "RAY_USAGE_STATS_ENABLED": "0",
    # A replica that reserves no accelerator sees none.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    # No operator writes it into statuses here, and nobody knows the token that it would ask with.
    OPEN_USAGE_VARIABLE: "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def detect_machine() -> LocalMachine:
    """Detect the CPU cores, free memory and accelerators of this machine or container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    accelerators = len(list(Path("/dev").glob("nvidia[0-9]*")))
    return LocalMachine(cores, _free_memory(), accelerators)


def _free_memory() -> int:
    free = int(psutil.virtual_memory().available)
    for limit_file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            free = min(free, int(Path(limit_file).read_text()))
    return free


def require_free_port(host: str, port: int, option: str = "--port") -> None:
    """Raise RayUnavailableError if Ray cannot listen at `host`, or another program listens on `port`.

    `option` is what chooses another port.
    """
    if ":" in host:
        raise RayUnavailableError(
            f"--host: got {host!r}; Ray Serve reaches its replicas by IPv4 only, so give 127.0.0.1 for this "
            "machine or 0.0.0.0 for all"
        )
    try:
        require_free(host, port)
    except socket.gaierror as error:
        raise RayUnavailableError(
            f"--host: got {host!r}; must be an IPv4 address or the name of one: {error.strerror}"
        ) from error
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise RayUnavailableError(f"--host: got {host!r}, which is no address of this machine") from error
        raise RayUnavailableError(
            f"port {port} cannot be used: {error.strerror}; choose another with {option}"
        ) from error


def require_ray() -> None:
    """Raise RayUnavailableError if Ray is not installed beside this command."""
    if importlib.util.find_spec("ray") is None:
        raise RayUnavailableError("Ray is not installed here: pip install 'model-endpoints[serve]'")


@contextmanager
def started_ray(machine: LocalMachine, host: str, port: int, grpc_port: int) -> Iterator[ServeClient]:
    """Start Ray and Serve on this machine; when the block ends, drain the replicas and stop everything."""
    token = secrets.token_hex(32)
    with printed_lines() as lines, _grpc_ports_of_replicas() as ports:
        environment = {LINES_VARIABLE: str(lines)} | ports | os.environ | _environment(token)
        process = subprocess.Popen(
            [sys.executable, "-m", "endpoint_operator.local.ray_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Ray writes the same into its log files.
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
            text=True,
        )
        try:
            dashboard = _dashboard_of(process, _ray_settings(machine, host, port, grpc_port))
            haproxy = environment.get("RAY_SERVE_ENABLE_HA_PROXY") == "1"
            yield ServeClient(dashboard, token, haproxy=haproxy)
        except KeyboardInterrupt:
            _kill(process)
            raise
        except BaseException:
            _end(process)
            raise
        else:
            _end(process)


def _ray_settings(machine: LocalMachine, host: str, port: int, grpc_port: int) -> dict[str, Any]:
    return {
        "cpus": logical_cpus(machine),
        "accelerators": machine.accelerators,
        "memory_bytes": machine.memory_bytes,
        "object_store_bytes": OBJECT_STORE_BYTES,
        "host": host,
        "port": port,
        "grpc_port": grpc_port,
    }


def _dashboard_of(process: "subprocess.Popen[str]", settings: dict[str, Any]) -> str:
    """Return the dashboard's URL, which the Ray process prints; raise RayUnavailableError if it fails."""
    assert process.stdin is not None
    assert process.stdout is not None
    print(json.dumps(settings), file=process.stdin, flush=True)
    line = process.stdout.readline()
    answer = json.loads(line) if line else {"error": f"its process ended with status {process.wait()}"}
    if "error" in answer:
        raise RayUnavailableError(f"Ray could not be started: {answer['error']}")
    return str(answer["dashboard"])


def _end(process: "subprocess.Popen[str]") -> None:
    """Let Ray and its replicas finish; end them if they take too long."""
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(STOP_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        _kill(process)
    except KeyboardInterrupt:
        _kill(process)
        raise


def _kill(process: "subprocess.Popen[str]") -> None:
    """End the process and all that it has started, at once."""
    with suppress(psutil.NoSuchProcess):
        ours = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        for each in ours:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        psutil.wait_procs(ours, KILL_TIMEOUT_SECONDS)
    process.wait()


@contextmanager
def joined_ray(dashboard_url: str) -> Iterator[ServeClient]:
    """Use the Ray whose dashboard is at `dashboard_url`; when the block ends, remove what was deployed.

    Raises RayUnavailableError if it already serves applications, because a new config would remove them.
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
    """Return the variables for Ray's processes; variables that the user has set are kept."""
    flags = dict(_LOCAL_FLAGS)
    # ray[serve] contains HAProxy on Linux only; elsewhere, Serve's own proxy is used.
    if sys.platform == "linux":
        flags |= _SERVE_FLAGS
        flags |= _our_haproxy()
        # Free ports, so that a second service can run on this machine.
        flags |= {
            "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
            "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(free_port()),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        }
    # With another token, the Ray that is started here would reject our requests.
    authentication = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    kept = {name: os.environ.get(name, value) for name, value in flags.items()}
    return kept | _proxy_exceptions() | authentication


@contextmanager
def _grpc_ports_of_replicas() -> Iterator[dict[str, str]]:
    """Return the variables that give replicas ports for gRPC which no other service on this machine has.

    Ray 2.60 means to start gRPC servers without SO_REUSEPORT, but gives gRPC "0" for a number, which it
    ignores (ray/serve/_private/grpc_util.py). So the replicas of two Rays would share ports unnoticed.
    A user who sets one of the variables sees to that.
    """
    if os.environ.keys() & set(_GRPC_PORTS):
        yield {}
        return
    with ExitStack() as stack:
        try:
            ports = stack.enter_context(range_of_its_own())
        except OSError as error:
            raise RayUnavailableError(f"no ports for the replicas' gRPC servers: {error}") from error
        yield dict(zip(_GRPC_PORTS, (str(ports[0]), str(ports[-1])), strict=True))


def _proxy_exceptions() -> dict[str, str]:
    """Return the variables that keep calls between Ray's processes from a proxy for the hub's downloads."""
    own = ["127.0.0.1", "localhost", socket.gethostname(), *_own_addresses()]
    names = ("no_proxy", "NO_PROXY")
    present = [part for name in names for part in os.environ.get(name, "").split(",") if part]
    exceptions = ",".join(dict.fromkeys([*present, *own]))
    return dict.fromkeys(names, exceptions)


def _own_addresses() -> list[str]:
    """Return this machine's IPv4 addresses."""
    return [
        each.address
        for addresses in psutil.net_if_addrs().values()
        for each in addresses
        if each.family is socket.AF_INET
    ]


def _our_haproxy() -> dict[str, str]:
    """Return the variable that names the command of `serve_app.http.haproxy`; none if it is not installed."""
    places = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    command = shutil.which("model-endpoints-haproxy", path=os.pathsep.join(places))
    return {"RAY_SERVE_HAPROXY_BINARY_PATH": command} if command else {}
