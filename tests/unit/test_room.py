import os
from types import SimpleNamespace

import pytest

from endpoint_operator.api.profiles import LocalMachine
from endpoint_operator.api.types import parse_endpoint
from endpoint_operator.local import room
from endpoint_operator.local.room import NoRoomError, require_room, require_temporary_files
from tests.harness.builders import manifest

MACHINE = LocalMachine(cpus=2, memory_bytes=100 * 2**30, accelerators=0)


def endpoints(number, **spec):
    asked = {"resources": {"memory": "300Mi"}, **spec}
    return [parse_endpoint(manifest(f"model-{count}", **asked)) for count in range(number)]


def test_as_many_replicas_as_there_are_places_have_room():
    require_room(endpoints(31), MACHINE)
    require_room(endpoints(1, scaling={"minReplicas": 31, "maxReplicas": 31}), MACHINE)


@pytest.mark.parametrize(
    "too_many", [endpoints(60), endpoints(6, scaling={"minReplicas": 10, "maxReplicas": 10})]
)
def test_more_replicas_than_there_are_places_are_refused(too_many):
    with pytest.raises(NoRoomError) as caught:
        require_room(too_many, MACHINE)
    sentence = "these endpoints ask for 60 replicas with 60 CPUs and this machine has places for 31.9"
    assert str(caught.value).startswith(sentence)


def test_what_rests_needs_no_room():
    require_room([*endpoints(31), *endpoints(60, suspend=True)], MACHINE)


def test_more_memory_than_there_is_is_refused():
    with pytest.raises(NoRoomError, match="ask for 120.0Gi of memory and this machine has 100.0Gi free"):
        require_room(endpoints(30, resources={"memory": "4Gi"}), MACHINE)


def test_a_folder_for_temporary_files_with_room_is_used(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    require_temporary_files()
    assert list(tmp_path.iterdir()) == []


def test_a_full_one_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=50, f_frsize=4096))
    with pytest.raises(
        NoRoomError, match=r"has 0\.2Mi free and Ray needs 32Mi there; make room, or set RAY_TMPDIR"
    ):
        require_temporary_files()


@pytest.mark.parametrize("folder", ["/proc", "/nowhere"])
def test_one_that_cannot_be_written_is_refused(folder, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", folder)
    with pytest.raises(NoRoomError, match=f"no file can be made in {folder}: .*; set RAY_TMPDIR"):
        require_temporary_files()


@pytest.mark.parametrize(
    ("variables", "folder"),
    [({}, "/tmp"), ({"TMPDIR": "/a"}, "/a"), ({"TMPDIR": "/a", "RAY_TMPDIR": "/b"}, "/b")],
)
def test_the_folder_is_the_one_that_ray_takes(variables, folder, monkeypatch):
    from ray._common.utils import get_default_system_temp_dir

    for name in ("TMPDIR", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(room._temporary_folder()) == get_default_system_temp_dir() == folder
