"""What replicas log for others to read, on the standard output of the command.

Ray gives its workers no stream of the process that starts it. So the command makes a FIFO, which replicas
open by its name.
"""

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

_CHUNK_BYTES: Final = 64 * 2**10
# Ends the reader; no line of JSON has it.
_END: Final = b"\0"


@contextmanager
def printed_lines(output: BinaryIO | None = None) -> Iterator[Path]:
    """Yield the path of a FIFO; whole lines that are written there are printed until the block ends."""
    with tempfile.TemporaryDirectory(prefix="modelendpoint-") as folder:
        path = Path(folder) / "lines"
        os.mkfifo(path, 0o600)
        # Open for writing too, so that it neither waits for the first writer nor ends with the last one.
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        thread = threading.Thread(target=_print, args=(descriptor, output or sys.stdout.buffer), daemon=True)
        thread.start()
        try:
            yield path
        finally:
            os.write(descriptor, _END)
            thread.join()
            os.close(descriptor)


def _print(descriptor: int, output: BinaryIO) -> None:
    """Print lines until the end; what the output does not take is lost, so that no replica waits for it."""
    rest = b""
    while _END not in rest:
        lines, _, rest = (rest + os.read(descriptor, _CHUNK_BYTES)).rpartition(b"\n")
        if lines:
            with suppress(OSError, ValueError):
                output.write(lines + b"\n")
                output.flush()
