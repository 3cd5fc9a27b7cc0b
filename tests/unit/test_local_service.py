"""The local service follows its files; doubles stand in for Ray and for the terminal."""

import threading

import pytest
import yaml

from endpoint_operator.local.manifests import Workspace
from endpoint_operator.local.serve_client import RayUnavailableError
from endpoint_operator.local.service import CannotServeError, LocalService, Options, serve_manifests
from serve_app.contract import ACCESS_LOG_VARIABLE
from tests.harness.builders import MACHINE, manifest


class Ray:
    """Keeps what it is given, and runs nothing."""

    def __init__(self):
        self.documents = []
        self.failures = 0

    def put(self, document):
        if self.failures:
            self.failures -= 1
            raise RayUnavailableError("it does not answer in time")
        self.documents.append(document)

    def details(self):
        return {"applications": {}}


class Terminal:
    """Notes what it is told, and stops the service after the first look at the files."""

    def __init__(self, stop):
        self.stop = stop
        self.complaints = []

    def complain(self, text):
        self.complaints.append(text)

    def say(self, text):
        """Nobody listens."""

    def show_changes(self, states):
        self.stop.set()

    def show_waiting(self, states, seconds):
        """Nobody waits."""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "first.yaml").write_text(yaml.safe_dump(manifest("first")))
    (tmp_path / "broken.yaml").write_text("kind: [")
    return tmp_path


def follow(folder, between):
    workspace = Workspace([folder])
    problems = workspace.reread()
    stop = threading.Event()
    ray, terminal = Ray(), Terminal(stop)
    service = LocalService(workspace, MACHINE, ray, terminal, problems)
    service.apply()
    between(ray)
    service.follow(stop)
    return ray, terminal


def test_a_file_that_came_while_the_models_were_loading_is_served(folder):
    second = folder / "second.yaml"
    ray, terminal = follow(folder, lambda _: second.write_text(yaml.safe_dump(manifest("second"))))
    assert ['"name":"second"' in document for document in ray.documents] == [False, True]


def test_a_change_that_ray_did_not_take_is_handed_over_again(folder):
    def change(ray):
        ray.failures = 1
        (folder / "second.yaml").write_text(yaml.safe_dump(manifest("second")))

    ray, terminal = follow(folder, change)
    assert ['"name":"second"' in document for document in ray.documents] == [False, True]
    assert "it does not answer in time" in terminal.complaints


def test_what_was_said_of_a_file_at_the_start_is_not_said_again(folder):
    ray, terminal = follow(folder, lambda _: (folder / "new.yaml").write_text("kind: {"))
    [complaint] = terminal.complaints
    assert "new.yaml:1" in complaint


def test_an_edit_that_asks_for_too_much_is_told(folder):
    def change(_):
        too_many = manifest("second", scaling={"minReplicas": 9, "maxReplicas": 9})
        (folder / "second.yaml").write_text(yaml.safe_dump(too_many))

    ray, terminal = follow(folder, change)
    [told] = [complaint for complaint in terminal.complaints if "this machine has" in complaint]
    assert told.endswith("those that are too many wait for a place")
    assert '"name":"second"' in ray.documents[-1]


def test_a_stop_while_models_are_fetched_is_obeyed(folder):
    workspace = Workspace([folder])
    workspace.reread()
    stop = threading.Event()
    service = LocalService(workspace, MACHINE, Ray(), Terminal(stop))
    service.apply()
    # The terminal stops at the first look; the models never come.
    states = service.wait_until_settled(stop)
    assert [state.settled for state in states.values()] == [False]


def test_an_access_log_of_a_ray_that_runs_already_is_refused(folder, monkeypatch):
    # The test's own environment is left as it was.
    monkeypatch.setenv(ACCESS_LOG_VARIABLE, "")
    (folder / "broken.yaml").unlink()
    options = Options(ray_dashboard="http://127.0.0.1:9", access_log=True)
    with pytest.raises(CannotServeError, match="--access-log: the processes of a Ray that runs already"):
        serve_manifests([folder], options, Terminal(threading.Event()))
