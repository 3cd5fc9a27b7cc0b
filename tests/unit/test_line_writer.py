"""Lines reach whoever reads them whole, and never hold up who writes them."""

import json
import os
import subprocess
import sys
import threading

import pytest

from serve_app.contract import LINES_VARIABLE
from serve_app.telemetry.line_writer import LineWriter

WRITERS = """
import sys
from serve_app.telemetry.line_writer import LineWriter
writer = LineWriter("test log")
for number in range(200):
    line = b'{"number": %d, "text": "%s"}' % (number, sys.argv[1].encode() * 20_000)
    writer.put(len(line), lambda line=line: line)
writer.close(60)
assert writer.dropped == 0, writer.dropped
"""


@pytest.fixture
def path(tmp_path, monkeypatch):
    path = tmp_path / "lines"
    monkeypatch.setenv(LINES_VARIABLE, str(path))
    return path


def put(writer, line):
    writer.put(len(line), lambda: line)


def test_lines_are_appended_in_their_order(path):
    path.write_text("what was there\n")
    writer = LineWriter("test log")
    for number in range(1000):
        put(writer, b"%d" % number)
    writer.close(10)
    assert path.read_text().splitlines() == ["what was there", *map(str, range(1000))]
    assert writer.dropped == 0


def test_without_a_path_they_are_on_standard_output(capfd, monkeypatch):
    monkeypatch.delenv(LINES_VARIABLE, raising=False)
    writer = LineWriter("test log")
    put(writer, b"a line")
    writer.close(10)
    assert capfd.readouterr().out == "a line\n"


def test_a_path_that_cannot_be_opened_is_told_and_standard_output_gets_the_lines(capfd, path, caplog):
    path.mkdir()
    writer = LineWriter("test log")
    put(writer, b"a line")
    writer.close(10)
    assert capfd.readouterr().out == "a line\n"
    assert "MODEL_ENDPOINTS_LINES names" in caplog.text


def test_a_reader_that_does_not_read_holds_up_nobody_and_what_has_no_room_is_counted(path, caplog):
    """The pipe takes 64 KiB, the queue 10 lines more."""
    os.mkfifo(path)
    reader = os.open(path, os.O_RDWR)
    drops = []
    writer = LineWriter("test log", drops.append, max_lines=10)
    for _ in range(200):
        put(writer, b"x" * 16_384)
    assert writer.dropped == sum(drops) >= 100
    assert "the test log has dropped 1 lines since the start: its queue is full" in caplog.text
    assert len(caplog.records) == 1
    got = bytearray()
    thread = threading.Thread(target=lambda: [got.extend(os.read(reader, 65_536)) for _ in range(3)])
    thread.start()
    thread.join(10)
    assert got.startswith(b"x" * 16_384 + b"\n")
    os.close(reader)


def test_bytes_are_bounded_too(path):
    os.mkfifo(path)
    reader = os.open(path, os.O_RDWR)
    writer = LineWriter("test log", max_bytes=100)
    put(writer, b"x" * 101)
    put(writer, b"x" * 100)
    assert writer.dropped == 1
    assert os.read(reader, 101) == b"x" * 100 + b"\n"
    os.close(reader)


def test_a_reader_that_is_gone_costs_only_what_it_would_have_read(path, caplog):
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = LineWriter("test log")
    put(writer, b"first")
    while not (got := _read(reader)):
        pass
    assert got == b"first\n"
    os.close(reader)
    put(writer, b"lost")
    # It is said a moment after it is counted.
    while not (writer.dropped and caplog.text):
        pass
    assert "cannot be written: [Errno 32] Broken pipe" in caplog.text
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    put(writer, b"second")
    writer.close(10)
    assert _read(reader) == b"second\n"
    os.close(reader)


def _read(reader):
    try:
        return os.read(reader, 100)
    except BlockingIOError:
        return b""


def test_a_line_that_cannot_be_made_is_dropped_alone(path):
    writer = LineWriter("test log")
    put(writer, b"before")
    writer.put(1, lambda: 1 / 0)
    put(writer, b"after")
    writer.close(10)
    assert path.read_text() == "before\nafter\n"
    assert writer.dropped == 1


def test_after_the_end_there_are_no_lines(path):
    writer = LineWriter("test log")
    writer.close(10)
    put(writer, b"late")
    assert writer.dropped == 1
    assert not path.exists()


def test_lines_of_several_processes_are_not_mixed(path):
    """Replicas share the container's standard output; a pipe keeps only 4096 bytes together."""
    os.mkfifo(path)
    reader = os.open(path, os.O_RDWR)
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITERS, letter], env=os.environ | _here()) for letter in "ab"
    ]
    lines = []
    with os.fdopen(reader, "rb") as stream:
        for _ in range(400):
            lines.append(json.loads(stream.readline()))
    assert [process.wait(30) for process in processes] == [0, 0]
    for letter in "ab":
        own = [line["number"] for line in lines if line["text"] == letter * 20_000]
        assert own == list(range(200))


def _here():
    return {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
