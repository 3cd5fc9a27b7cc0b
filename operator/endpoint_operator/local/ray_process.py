"""A process that runs Ray and Serve on this machine until its standard input is closed.

It has a session of its own, so that Ctrl-C in the terminal reaches the command but not Ray. Its input is
closed however the command ends.

Protocol, one JSON object per line: it reads settings, and answers `{"dashboard": <url>}` or
`{"error": <sentence>}`.
"""

import json
import sys
from typing import Any

from serve_app.contract import grpc_options
from serve_app.text import LONGEST_CAUSE


def main() -> None:
    """Start Ray with the settings of the first line, wait for the end of the input, drain and stop."""
    settings = json.loads(sys.stdin.readline())
    # What Ray prints must not get into the answer.
    answer, sys.stdout = sys.stdout, sys.stderr
    import ray
    from ray import serve

    try:
        dashboard = _start(settings)
    except Exception as error:
        json.dump({"error": _cause(error)}, answer)
        answer.close()
        ray.shutdown()
        raise
    print(json.dumps({"dashboard": dashboard}), file=answer, flush=True)
    sys.stdin.read()
    serve.shutdown()
    ray.shutdown()


def _cause(error: BaseException) -> str:
    """Return the cause of a start that failed. Ray's own message quotes a log, whose end says most."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = " ".join(str(error).split())
    return lines if len(lines) <= LONGEST_CAUSE else f"…{lines[-LONGEST_CAUSE:]}"


def _start(settings: dict[str, Any]) -> str:
    """Start Ray and Serve; return the dashboard's URL."""
    import ray
    from ray import serve

    context = ray.init(
        # Without it, Ray would join a Ray that runs on this machine or that RAY_ADDRESS names.
        address="local",
        num_cpus=settings["cpus"],
        num_gpus=settings["accelerators"],
        _memory=settings["memory_bytes"],
        object_store_memory=settings["object_store_bytes"],
        include_dashboard=True,
        dashboard_host="127.0.0.1",
        log_to_driver=False,
    )
    serve.start(
        http_options={"host": settings["host"], "port": settings["port"]},
        grpc_options=grpc_options(settings["grpc_port"]),
    )
    return f"http://{context.dashboard_url}"


if __name__ == "__main__":
    main()
