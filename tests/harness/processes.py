"""Run a program until the end of a block, and never longer than the process that started it."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# Looked up before the fork: between fork and exec only what is already loaded is safe to call.
_LIBC: Final = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG: Final = 1  # <sys/prctl.h>


@dataclass(frozen=True)
class Program:
    """A running program and the file that its output goes to."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def ended(self) -> bool:
        """Return whether the program is no longer running."""
        return self.process.poll() is not None

    def output(self, lines: int = 40) -> str:
        """Return the last `lines` that it wrote, under its name."""
        written = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
        state = f"exit status {self.process.returncode}" if self.ended() else "still running"
        return "\n".join([f"--- {self.name} ({state})", *written])


@contextmanager
def running(name: str, command: Sequence[str | Path], log: Path) -> Iterator[Program]:
    """Run `command` until the end of the block; its output goes to the file `log`.

    On Linux the kernel kills it when the thread that entered the block ends, however that comes.
    """
    process = _start(command, log)
    try:
        yield Program(name, process, log)
    finally:
        # Its data is thrown away with its folder, so a graceful stop would save nothing.
        process.kill()
        process.wait()


def _start(command: Sequence[str | Path], log: Path) -> subprocess.Popen[bytes]:
    parent = os.getpid()

    def die_with_parent() -> None:
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            # A parent that ended before the line above sends no signal any more.
            if os.getppid() != parent:
                os._exit(1)

    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Out of the terminal's group: Ctrl-C must not end it while tests still clean up.
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
