"""Serve manifests on this machine: compile them, apply the config, follow the files, and stop cleanly."""

import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from watchfiles import watch

from endpoint_operator.api.profiles import LocalMachine, Profiles
from endpoint_operator.api.types import ModelEndpoint
from endpoint_operator.local.access import KeysFileError, KeysFolder, KeysOptions, keys_folder
from endpoint_operator.local.manifests import ManifestError, Workspace
from endpoint_operator.local.ray import (
    detect_machine,
    joined_ray,
    require_free_port,
    require_ray,
    started_ray,
)
from endpoint_operator.local.room import NoRoomError, require_room, require_temporary_files
from endpoint_operator.local.serve_client import RayUnavailableError, ServeClient
from endpoint_operator.local.state import EndpointState, State, read_state
from endpoint_operator.local.stopping import stop_request
from endpoint_operator.serveconfig.compiler import Rejection, compile_serve_config
from serve_app.contract import ACCESS_LOG_VARIABLE, GATEWAY_APPLICATION, GRPC_PORT, MODELS_VARIABLE

POLL_SECONDS: Final = 0.5
# Serve reports the old state for a moment after it has accepted a new config.
SETTLE_SECONDS: Final = 1.5
# For replicas that receive HTTP directly, Serve raises a shorter graceful shutdown to this.
SERVE_DRAIN_SECONDS: Final = 35.0
# Interval at which files and states are checked once everything runs.
WATCH_MILLISECONDS: Final = 1000
# After this time, the table is shown although some models are still loading.
PATIENCE_SECONDS: Final = 120.0
# Ray may answer slowly while models load; after this time it counts as gone.
RAY_GONE_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Options:
    """Where to serve, the folder that stands in for /models, and the Ray to join instead of starting one."""

    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int = GRPC_PORT
    models: Path | None = None
    ray_dashboard: str | None = None
    keys: KeysOptions | None = None
    access_log: bool = False


class CannotServeError(Exception):
    """Nothing can be served; the sentence says why."""


class Reporter(Protocol):
    """What the service tells the person who runs it; `cli.display.Display` prints it."""

    def say(self, sentence: str) -> None: ...

    def complain(self, sentence: str) -> None: ...

    def show_changes(self, states: Iterable[EndpointState]) -> None: ...

    def show_waiting(self, states: Iterable[EndpointState], seconds: float) -> None: ...

    def show_table(
        self, endpoints: Sequence[ModelEndpoint], states: Mapping[str, EndpointState], base_url: str
    ) -> None: ...

    def show_example(self, endpoint: ModelEndpoint, base_url: str) -> None: ...


class LocalService:
    """The endpoints of a workspace on one Ray."""

    def __init__(
        self,
        workspace: Workspace,
        profiles: Profiles,
        client: ServeClient,
        reporter: Reporter,
        said: Iterable[ManifestError] = (),
        keys: KeysFolder | None = None,
    ) -> None:
        """`said` are errors of the workspace that were reported before."""
        self._keys = keys
        self._workspace = workspace
        self._said = frozenset(said)
        self._profiles = profiles
        self._client = client
        self._reporter = reporter
        self._document = ""
        self._rejections: dict[str, Rejection] = {}
        self._applied = 0.0

    def apply(self) -> bool:
        """Compile the workspace and send the config to Serve; return whether it has changed."""
        compilation = compile_serve_config(self._workspace.endpoints, self._profiles)
        self._rejections = {rejection.key[1]: rejection for rejection in compilation.rejections}
        if compilation.document == self._document:
            return False
        self._client.put(compilation.document)
        self._document = compilation.document
        self._applied = time.monotonic()
        return True

    def states(self) -> dict[str, EndpointState]:
        """Return the state of each endpoint of the workspace."""
        applications = self._client.details()["applications"]
        return {
            endpoint.name: self._state(endpoint, applications.get(endpoint.name))
            for endpoint in self._workspace.endpoints
        }

    def _state(self, endpoint: ModelEndpoint, application: dict[str, object] | None) -> EndpointState:
        if endpoint.spec.suspend:
            return EndpointState(endpoint.name, State.SUSPENDED)
        if endpoint.name in self._rejections:
            return EndpointState(endpoint.name, State.REJECTED, cause=self._rejections[endpoint.name].reason)
        return read_state(endpoint.name, application)

    def http_url(self) -> str:
        """Return the URL at which the models answer."""
        return self._client.http_url()

    def wait_until_settled(self, stop: threading.Event) -> dict[str, EndpointState]:
        """Show progress until every endpoint has settled or `stop` is set.

        After PATIENCE_SECONDS, it is enough that one endpoint answers.
        """
        while True:
            states = self.states()
            self._reporter.show_changes(states.values())
            age = time.monotonic() - self._applied
            self._reporter.show_waiting(states.values(), age)
            settled = age > SETTLE_SECONDS and all(state.settled for state in states.values())
            enough = age > PATIENCE_SECONDS and any(state.ready_replicas for state in states.values())
            if settled or enough or stop.wait(POLL_SECONDS):
                return states

    def drain(self) -> None:
        """Remove all models and wait until their replicas have finished their requests."""
        self._client.put(compile_serve_config((), self._profiles).document)
        graceful = [endpoint.spec.health.graceful_shutdown_seconds for endpoint in self._workspace.endpoints]
        deadline = time.monotonic() + max([SERVE_DRAIN_SECONDS, *graceful]) + SETTLE_SECONDS
        while time.monotonic() < deadline:
            if self._client.details()["applications"].keys() <= {GATEWAY_APPLICATION}:
                return
            time.sleep(POLL_SECONDS)

    def follow(self, stop: threading.Event) -> None:
        """Apply changes of the files and show changes of states until `stop` is set."""
        answered = time.monotonic()
        # The watch begins only now, so files edited while the models were loading are read once.
        unread = True
        followed = [*self._workspace.arguments, *([self._keys.source] if self._keys else [])]
        folders = {path if path.is_dir() else path.parent for path in followed}
        for changes in watch(
            *folders,
            stop_event=stop,
            rust_timeout=WATCH_MILLISECONDS,
            yield_on_timeout=True,
            recursive=False,
            raise_interrupt=False,
        ):
            try:
                # An edit that could not be handed over is still to be read.
                unread = unread or bool(changes)
                if unread:
                    self._take_over()
                    unread = False
                self._reporter.show_changes(self.states().values())
                answered = time.monotonic()
            except RayUnavailableError as error:
                if time.monotonic() - answered > RAY_GONE_SECONDS:
                    raise
                self._reporter.complain(str(error))

    def _take_over(self) -> None:
        if self._keys is not None:
            try:
                self._keys.write()
            except KeysFileError as error:
                self._reporter.complain(f"{error}\n  the keys of before go on")
        for problem in self._workspace.reread():
            if problem not in self._said:
                self._reporter.complain(f"{problem}\n  what was running goes on unchanged")
        self._said = frozenset()
        if self.apply():
            self._reporter.say("Applied the change.")
            self._say_what_has_no_room()

    def _say_what_has_no_room(self) -> None:
        if isinstance(self._profiles, LocalMachine):
            try:
                require_room(self._workspace.endpoints, self._profiles)
            except NoRoomError as error:
                self._reporter.complain(f"{error}; those that are too many wait for a place")


def serve_manifests(arguments: Sequence[Path], options: Options, reporter: Reporter) -> None:
    """Serve the manifests that `arguments` name until SIGINT or SIGTERM.

    Raises CannotServeError if nothing can be served.
    """
    workspace = Workspace(arguments)
    problems = workspace.reread()
    for problem in problems:
        reporter.complain(str(problem))
    if not workspace.endpoints:
        raise CannotServeError("there is no endpoint to serve in " + ", ".join(map(str, arguments)))
    if options.models is not None:
        os.environ[MODELS_VARIABLE] = str(options.models.resolve())
    if options.access_log:
        os.environ[ACCESS_LOG_VARIABLE] = "1"
    machine = detect_machine()
    try:
        require_room(workspace.endpoints, machine)
        with (
            keys_folder(options.keys) as keys,
            stop_request() as stop,
            _chosen_ray(machine, options, reporter) as client,
        ):
            service = LocalService(workspace, machine, client, reporter, problems, keys)
            with stop.graceful() as event:
                _serve(service, workspace.endpoints, event, reporter)
    except (KeysFileError, RayUnavailableError, NoRoomError) as error:
        raise CannotServeError(str(error)) from error
    except KeyboardInterrupt:
        reporter.say("\nStopped at once.")
    else:
        reporter.say("Stopped.")


def _serve(
    service: LocalService, endpoints: Sequence[ModelEndpoint], stop: threading.Event, reporter: Reporter
) -> None:
    """Serve until `stop` is set, then let the replicas finish."""
    service.apply()
    reporter.say("Ray is up; the models are loading.")
    states = service.wait_until_settled(stop)
    if not stop.is_set():
        _introduce(endpoints, states, service.http_url(), reporter)
        service.follow(stop)
    reporter.say("\nStopping: requests in work are finished first. Another Ctrl-C stops at once.")
    service.drain()


def _introduce(
    endpoints: Sequence[ModelEndpoint],
    states: dict[str, EndpointState],
    base_url: str,
    reporter: Reporter,
) -> None:
    """Show the table and an example; raise CannotServeError if no endpoint answers."""
    wanted = [state for state in states.values() if state.state is not State.SUSPENDED]
    if wanted and not any(state.state in (State.READY, State.DEGRADED) for state in wanted):
        raise CannotServeError(f"no endpoint could be served; {wanted[0].name}: {wanted[0].cause}")
    reporter.show_table(endpoints, states, base_url)
    ready = [endpoint for endpoint in endpoints if states[endpoint.name].state is State.READY]
    if ready:
        reporter.show_example(_best_example(ready), base_url)
    reporter.say("Edited files are applied at once. Ctrl-C stops everything.")


def _best_example(ready: Sequence[ModelEndpoint]) -> ModelEndpoint:
    """Return the endpoint whose answer is the easiest to understand."""
    return min(ready, key=lambda endpoint: (endpoint.spec.model.task != "text-classification", endpoint.name))


def _chosen_ray(
    machine: LocalMachine, options: Options, reporter: Reporter
) -> AbstractContextManager[ServeClient]:
    if options.ray_dashboard is not None:
        if options.keys is not None:
            raise RayUnavailableError("--keys: the processes of a Ray that runs already do not see them")
        if options.access_log:
            raise RayUnavailableError("--access-log: the processes of a Ray that runs already cannot be told")
        return joined_ray(options.ray_dashboard)
    require_ray()
    if options.port == options.grpc_port:
        raise RayUnavailableError(f"--grpc-port: got {options.grpc_port}, which is the HTTP port, too")
    require_free_port(options.host, options.port)
    require_free_port(options.host, options.grpc_port, "--grpc-port")
    require_temporary_files()
    gibibytes = machine.memory_bytes / 2**30
    reporter.say(f"Starting Ray on this machine: {machine.cpus} cores, {gibibytes:.1f}Gi of memory free.")
    return started_ray(machine, options.host, options.port, options.grpc_port)
