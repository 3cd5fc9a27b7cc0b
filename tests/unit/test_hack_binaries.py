"""How a binary is found or built, with a `go` that writes a script instead of compiling.

The script stands for a program of that version; the tests on the API server run what the real modules build.
"""

import multiprocessing
import os
import re
from pathlib import Path

import pytest

from hack.errors import CannotBuildError
from hack.paths import MODULES
from hack.toolchain import binaries, catalogue, go_toolchain
from hack.toolchain.binaries import binary_path
from hack.toolchain.catalogue import CATALOGUE
from hack.toolchain.go_toolchain import find_go, required_version

ETCD = CATALOGUE["etcd"]
VERSION = ETCD.version.removeprefix("v")

FAKE_GO = """#!/bin/sh
if [ "$1" = env ]; then echo {go_version}; exit; fi
echo built >> {log}
/bin/sleep 0.3
while [ "$1" != -o ]; do shift; done
printf '#!/bin/sh\\necho etcd Version: {version}\\n' > "$2"
/bin/chmod +x "$2"
exit {status}
"""


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """An empty cache, and a PATH with nothing but what the test puts there."""
    binaries.has_version.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setattr(catalogue, "BINARIES", tmp_path / "bin")
    monkeypatch.setattr(go_toolchain, "GO", tmp_path / "go")
    return tmp_path


def install_go(machine, go_version="go1.99.1", version=VERSION, status=0):
    text = FAKE_GO.format(go_version=go_version, log=machine / "log", version=version, status=status)
    script(machine / "path" / "go", text)


def install_etcd(machine, version):
    script(machine / "path" / "etcd", f"#!/bin/sh\necho etcd Version: {version}\n")


def builds(machine):
    log = machine / "log"
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_a_binary_is_built_once_and_says_so_in_one_line(machine):
    install_go(machine)
    written = []
    paths = {binary_path("etcd", write=written.append) for _ in range(2)}
    assert paths == {machine / "bin" / f"etcd-{ETCD.version}" / "etcd"}
    assert builds(machine) == 1
    assert re.fullmatch(rf"etcd {ETCD.version}: building from Go modules \.\.\. \d+ s\n", "".join(written))


def test_processes_at_once_build_once(machine):
    install_go(machine)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=binary_path, args=("etcd",)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert builds(machine) == 1


def test_the_right_version_on_the_path_is_used(machine):
    install_go(machine)
    install_etcd(machine, VERSION)
    assert binary_path("etcd") == machine / "path" / "etcd"
    assert builds(machine) == 0


@pytest.mark.parametrize("version", ["3.6.5", "3.6.60", f"{ETCD.version}-dispatcher", ""])
def test_another_version_on_the_path_is_not(machine, version):
    install_go(machine)
    install_etcd(machine, version)
    assert binary_path("etcd") == ETCD.built
    assert builds(machine) == 1


def test_a_failed_build_leaves_no_binary_and_shows_the_command_s_words(machine):
    install_go(machine, status=1)
    with pytest.raises(CannotBuildError, match=rf"etcd {ETCD.version} does not build with .*/path/go"):
        binary_path("etcd")
    assert not ETCD.built.exists()


def test_a_build_of_another_version_is_not_kept(machine):
    install_go(machine, version="3.0.0")
    with pytest.raises(CannotBuildError, match="does not report that version"):
        binary_path("etcd")
    assert not ETCD.built.exists()


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(CannotBuildError, match="no binary is called 'minikube'; there are etcd, kube-api"):
        binary_path("minikube")


@pytest.mark.parametrize("go_version", ["go1.24.13", "go1.9", "devel"])
def test_without_a_new_enough_go_one_sentence_says_what_to_install(machine, monkeypatch, go_version):
    install_go(machine, go_version=go_version)
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(machine / "uv"))
    with pytest.raises(CannotBuildError, match=r"path/go is too old and .*: install Go 1\.25\.0 or newer"):
        find_go(ETCD.folder)


def test_what_the_modules_ask_for_can_be_installed_from_pypi():
    pinned = tuple(int(part) for part in go_toolchain.PYPI_GO.partition("==")[2].split("."))
    assert all(required_version(module) <= pinned for module in MODULES.iterdir())


def test_kubernetes_and_its_staging_modules_have_one_version():
    text = (MODULES / "kubernetes" / "go.mod").read_text()
    replaced = set(re.findall(r"^\s*k8s\.io/\S+ => k8s\.io/\S+ v0\.(\S+)$", text, re.MULTILINE))
    assert {f"v1.{minor}" for minor in replaced} == {CATALOGUE["kube-apiserver"].version}


def test_no_file_of_the_modules_names_a_place_of_this_machine():
    for path in MODULES.rglob("go.*"):
        assert not re.search(rf"=> [./]|{re.escape(os.path.expanduser('~'))}", Path(path).read_text())
