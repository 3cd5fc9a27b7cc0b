"""`python -m endpoint_operator` starts the operator."""

import signal
import sys


def start() -> None:
    """Run the operator; SIGTERM ends it at any time."""
    # The kernel lets the first process of a container ignore a signal that it has no handler for, and the
    # imports take seconds on a busy node. The operator replaces the handler once it runs.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("SIGTERM came before the operator had started"))

    from endpoint_operator.controller.main import main

    main()


if __name__ == "__main__":
    start()
