"""The operator's process before the operator runs."""

import signal
import subprocess
import sys


def test_sigterm_ends_it_while_it_still_imports():
    """The first process of a container is not ended by a signal for which it has no handler."""
    command = [sys.executable, "-X", "importtime", "-m", "endpoint_operator"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        # The first module of kopf is there, and its others follow.
        assert any("kopf" in line for line in process.stderr)
        process.send_signal(signal.SIGTERM)
        told = process.stderr.read()
    assert "SIGTERM came before the operator had started" in told
    assert process.returncode == 1
