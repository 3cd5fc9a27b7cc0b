"""How a program is taken out of a Debian package, with an `apt-get` and a `dpkg-deb` that are scripts."""

import os

import pytest

from hack.errors import CommandError, MissingError
from hack.toolchain import debian_programs
from hack.toolchain.debian_programs import debian_program

# It downloads once the lists are there, or at once where `lists` exists.
APT = """#!/bin/sh
echo "$1" >> {log}
case "$1" in
update) /bin/touch {lists} ;;
download) [ -e {lists} ] || {{ echo "E: no lists" >&2; exit 100; }}; /bin/touch prometheus.deb ;;
esac
"""
DPKG = """#!/bin/sh
/bin/mkdir -p "$3/usr/bin"
echo the program > "$3/usr/bin/promtool"
"""


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """An empty cache, and a PATH with nothing on it."""
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setattr(debian_programs, "BINARIES", tmp_path / "bin")
    return tmp_path


@pytest.fixture
def debian(machine):
    script(machine / "path" / "apt-get", APT.format(log=machine / "log", lists=machine / "lists"))
    script(machine / "path" / "dpkg-deb", DPKG)
    return machine


def calls(machine):
    return (machine / "log").read_text().split()


def test_the_one_on_the_path_is_taken(machine):
    script(machine / "path" / "promtool", "#!/bin/sh\n")
    assert debian_program("promtool") == machine / "path" / "promtool"


def test_it_is_taken_out_of_the_package_once(debian):
    (debian / "lists").touch()
    program = debian_program("promtool", write=lambda text: None)
    assert program.read_text() == "the program\n"
    assert os.access(program, os.X_OK)
    assert debian_program("promtool") == program
    assert calls(debian) == ["download"]


def test_root_updates_the_lists_of_packages_where_they_are_missing(debian, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert debian_program("promtool", write=lambda text: None).exists()
    assert calls(debian) == ["download", "update", "download"]


def test_others_are_told_to(debian, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(MissingError, match="apt-get update"):
        debian_program("promtool", write=lambda text: None)


def test_a_package_that_cannot_be_unpacked_leaves_nothing(debian):
    (debian / "lists").touch()
    script(debian / "path" / "dpkg-deb", "#!/bin/sh\nexit 1\n")
    with pytest.raises(CommandError, match="dpkg-deb"):
        debian_program("promtool", write=lambda text: None)
    assert not list((debian / "bin").rglob("promtool"))


def test_without_apt_it_is_said_what_to_install(machine):
    with pytest.raises(MissingError, match="the package prometheus"):
        debian_program("promtool")
