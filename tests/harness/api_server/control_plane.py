"""A Kubernetes control plane of plain processes: etcd, kube-apiserver and, if asked for, its controllers.

Needs no root, no node and no network but the loopback device; each one has its own folder, port and keys.
"""

import secrets
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import httpx
import yaml

from endpoint_operator.local.ports import free_port
from hack.toolchain.binaries import binary_path
from tests.harness.api_server.certificates import Certificates, make_certificates
from tests.harness.processes import Program, running

# Three seconds are usual; a machine that also builds or loads models takes longer.
START_SECONDS: Final = 60
# A port is free when we ask and may be taken when the API server binds it.
PORT_ATTEMPTS: Final = 5
_POLL_SECONDS: Final = 0.05
# What `control_plane` starts, and kubectl to look at it.
PROGRAMS: Final = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")


class StartError(Exception):
    """A control plane did not come up; the message holds what its processes wrote."""


class PortTakenError(StartError):
    """The API server found that another process had taken its port."""


class ApiServer:
    """The kube-apiserver of a control plane: it may crash and come back with the same data, port and keys.

    As with `running`, the thread that starts it must live as long as it does.
    """

    def __init__(self, command: list[str | Path], log: Path, etcd: Program) -> None:
        self._command = command
        self._log = log
        self._etcd = etcd
        self._process = ExitStack()

    def start(self, server: "ControlPlane") -> None:
        """Start it and wait until it answers as `server`."""
        with ExitStack() as process:
            program = process.enter_context(running("kube-apiserver", self._command, self._log))
            # The namespace comes a moment after the server calls itself ready.
            _wait(server, "/readyz", [self._etcd, program])
            _wait(server, "/api/v1/namespaces/default", [self._etcd, program])
            self._process.push(process.pop_all())

    def kill(self) -> None:
        """End it as a crash would; all connections break."""
        self._process.close()


@dataclass(frozen=True)
class ControlPlane:
    """A running API server and how a member of system:masters reaches it."""

    url: str
    ca: Path
    token: str
    kubeconfig: Path
    folder: Path
    api_server: ApiServer = field(repr=False)

    def kill_api_server(self) -> None:
        """End the API server as a crash would; etcd stays, with all data."""
        self.api_server.kill()

    def start_api_server(self) -> None:
        """Start it again at the same address, and wait until it answers."""
        self.api_server.start(self)


@contextmanager
def control_plane(*, controllers: bool = False) -> Iterator[ControlPlane]:
    """Run an API server until the end of the block, with kube-controller-manager if `controllers`.

    Without it there is no garbage collection, no deletion of namespaces and no service accounts.
    Raises CannotBuildError without binaries, StartError with the logs if it does not come up.
    """
    # A short path: the name of etcd's socket must fit into 107 bytes.
    with TemporaryDirectory(prefix="mep-") as name, ExitStack() as stack:
        folder = Path(name)
        certificates = make_certificates(folder)
        token = secrets.token_urlsafe(32)
        _write_private(folder / "tokens.csv", f'{token},admin,admin,"system:masters"\n')
        etcd = stack.enter_context(running("etcd", _etcd_command(folder), folder / "etcd.log"))
        server = _start_api_server(stack, etcd, folder, certificates, token)
        write_kubeconfig(server.kubeconfig, server.url, server.ca, token)
        if controllers:
            _start_controllers(stack, server, certificates)
        yield server


def client(server: ControlPlane, url: str = "") -> httpx.Client:
    """Return an HTTP client that speaks to `server` as its administrator; through `url`, if given."""
    context = ssl.create_default_context(cafile=server.ca)
    headers = {"Authorization": f"Bearer {server.token}"}
    # Threads share the client. On a slow machine httpcore closes a connection, as idle for too long, that it
    # has just given to another thread's request. A limit of None closes none.
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=None)
    return httpx.Client(
        base_url=url or server.url,
        headers=headers,
        verify=context,
        timeout=5,
        trust_env=False,
        limits=limits,
    )


def write_kubeconfig(path: Path, url: str, ca: Path, token: str) -> None:
    """Write a kubeconfig for whoever holds `token`."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "clusters": [{"name": "test", "cluster": {"server": url, "certificate-authority": str(ca)}}],
        "users": [{"name": "test", "user": {"token": token}}],
    }
    _write_private(path, yaml.safe_dump(document, sort_keys=False))


def _etcd_command(folder: Path) -> list[str | Path]:
    # A single member must advertise an address, which no one then uses.
    nowhere = "http://127.0.0.1:1"
    return [
        binary_path("etcd"),
        f"--data-dir={folder}/etcd",
        # Sockets instead of ports: nothing can collide, and no other user can reach them.
        f"--listen-client-urls={_etcd_url(folder)}",
        f"--listen-peer-urls=unix://{folder}/peers.sock",
        f"--advertise-client-urls={nowhere}",
        f"--initial-advertise-peer-urls={nowhere}",
        f"--initial-cluster=default={nowhere}",
        # The data does not outlive the process, so no write needs to reach the disk.
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def _etcd_url(folder: Path) -> str:
    return f"unix://{folder}/etcd.sock"


def _start_api_server(
    stack: ExitStack, etcd: Program, folder: Path, certificates: Certificates, token: str
) -> ControlPlane:
    for attempt in range(1, PORT_ATTEMPTS + 1):
        url = f"https://127.0.0.1:{free_port()}"
        command = _api_server_command(folder, certificates, url)
        api_server = ApiServer(command, folder / f"kube-apiserver-{attempt}.log", etcd)
        server = ControlPlane(url, certificates.ca, token, folder / "kubeconfig", folder, api_server)
        try:
            api_server.start(server)
        except PortTakenError:
            continue
        stack.callback(api_server.kill)
        return server
    raise StartError(f"kube-apiserver found its port taken {PORT_ATTEMPTS} times in a row")


def _api_server_command(folder: Path, certificates: Certificates, url: str) -> list[str | Path]:
    port = httpx.URL(url).port
    return [
        binary_path("kube-apiserver"),
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        # Named, or the server looks for a default route, which an offline machine lacks.
        "--advertise-address=127.0.0.1",
        # The Service `kubernetes` has no node to be reached from, and refuses a loopback address.
        "--endpoint-reconciler-type=none",
        f"--etcd-servers={_etcd_url(folder)}",
        f"--tls-cert-file={certificates.server}",
        f"--tls-private-key-file={certificates.server_key}",
        f"--token-auth-file={folder}/tokens.csv",
        "--authorization-mode=RBAC",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={certificates.service_account_key}",
        f"--service-account-signing-key-file={certificates.service_account_key}",
    ]


def _start_controllers(stack: ExitStack, server: ControlPlane, certificates: Certificates) -> None:
    command: list[str | Path] = [
        binary_path("kube-controller-manager"),
        f"--kubeconfig={server.kubeconfig}",
        f"--service-account-private-key-file={certificates.service_account_key}",
        f"--root-ca-file={certificates.ca}",
        "--use-service-account-credentials",
        "--leader-elect=false",
        # 0 means that it serves nothing.
        "--secure-port=0",
    ]
    log = server.folder / "kube-controller-manager.log"
    controllers = stack.enter_context(running("kube-controller-manager", command, log))
    _wait(server, "/api/v1/namespaces/default/serviceaccounts/default", [controllers])


def _wait(server: ControlPlane, path: str, programs: list[Program]) -> None:
    """Wait until a GET of `path` succeeds; fail with the programs' output if one of them ends."""
    deadline = time.monotonic() + START_SECONDS
    with client(server) as http:
        while not _answers(http, path):
            for program in programs:
                if program.ended():
                    raise _why_ended(program, programs)
            if time.monotonic() > deadline:
                output = "\n".join(program.output() for program in programs)
                raise StartError(f"{path} was not there after {START_SECONDS} s:\n{output}")
            time.sleep(_POLL_SECONDS)


def _answers(http: httpx.Client, path: str) -> bool:
    try:
        return http.get(path).is_success
    except httpx.TransportError:
        return False


def _why_ended(program: Program, programs: list[Program]) -> StartError:
    output = "\n".join(program.output() for program in programs)
    kind = PortTakenError if "address already in use" in program.output() else StartError
    return kind(f"{program.name} ended with status {program.process.returncode} at its start:\n{output}")


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
