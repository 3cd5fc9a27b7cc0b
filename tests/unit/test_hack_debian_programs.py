"""How a program is taken out of a Debian package, with an `apt-get` and a `dpkg-deb` that are scripts."""

import os
import subprocess

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
install) /bin/touch browser.deb libneeded.deb ;;
esac
"""
DPKG = """#!/bin/sh
/bin/mkdir -p "$3/usr/bin"
echo the program > "$3/usr/bin/promtool"
"""


# Each package has its own part of the tree; the program tells with what it was started.
DPKG_OF_A_BROWSER = """#!/bin/sh
case "$2" in
*browser.deb)
    /bin/mkdir -p "$3/usr/lib/chromium" "$3/etc/fonts"
    /bin/touch "$3/etc/fonts/fonts.conf"
    program="$3/usr/lib/chromium/chromium-headless-shell"
    printf '#!/bin/sh\\necho "$LD_LIBRARY_PATH $FONTCONFIG_SYSROOT $*"\\n' > "$program"
    /bin/chmod 755 "$program" ;;
*) /bin/mkdir -p "$3/usr/lib/x86_64-linux-gnu"; /bin/touch "$3/usr/lib/x86_64-linux-gnu/libneeded.so.1" ;;
esac
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


def test_a_program_with_libraries_is_kept_whole_and_started_with_them(debian):
    script(debian / "path" / "dpkg-deb", DPKG_OF_A_BROWSER)
    program = debian_program("chromium", write=lambda text: None)
    root = program.parent / "root"
    said = subprocess.run([program, "a", "b c"], capture_output=True, text=True, check=True).stdout
    assert said == f"{root}/usr/lib/x86_64-linux-gnu {root} a b c\n"
    assert debian_program("chromium") == program
    assert calls(debian) == ["install"]
    assert sorted(path.name for path in program.parent.iterdir()) == ["chromium", "root"]


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
