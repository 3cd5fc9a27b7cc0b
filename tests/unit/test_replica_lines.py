"""Lines of replicas reach the output of the command, whole and until its end."""

import io
import os

from endpoint_operator.local.replica_lines import printed_lines


class Closed(io.BytesIO):
    """An output whose reader has gone, as with `| head`."""

    def write(self, data):
        raise BrokenPipeError


def write(path, data):
    with path.open("wb") as lines:
        lines.write(data)


def test_lines_of_several_writers_are_printed_whole():
    output = io.BytesIO()
    with printed_lines(output) as path:
        write(path, b"first\nsec")
        write(path, b"ond\n")
        write(path, b"x" * 200_000 + b"\n")
    assert output.getvalue() == b"first\nsecond\n" + b"x" * 200_000 + b"\n"
    assert not path.exists()


def test_the_end_of_a_writer_is_not_the_end():
    output = io.BytesIO()
    with printed_lines(output) as path:
        for number in range(3):
            write(path, b"%d\n" % number)
    assert output.getvalue() == b"0\n1\n2\n"


def test_an_output_that_is_closed_holds_up_no_writer():
    with printed_lines(Closed()) as path:
        for _ in range(10):
            write(path, b"x" * 65_536 + b"\n")


def test_only_this_user_may_read_and_write_there():
    with printed_lines(io.BytesIO()) as path:
        assert os.stat(path).st_mode & 0o777 == 0o600
        assert os.stat(path.parent).st_mode & 0o777 == 0o700
