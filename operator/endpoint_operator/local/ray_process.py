"""A process that holds Ray and Serve on this machine for as long as its standard input stays open.

It runs in a session of its own, so that Ctrl-C in the terminal reaches the command and not Ray, and
it notices the end of the command, however that came, by the end of its input.

Protocol, one JSON object a line: settings in; then `{"dashboard": <url>}` or `{"error": <sentence>}` out.
"""

import json
import sys
from typing import Any


def main() -> None:
    """Start Ray as the first input line says, wait for the end of input, drain and stop."""
    settings = json.loads(sys.stdin.readline())
    # Whatever Ray prints must not mix with the one line that is the answer.
    answer, sys.stdout = sys.stdout, sys.stderr
    import ray
    from ray import serve

    try:
        dashboard = _start(settings)
    except Exception as error:
        json.dump({"error": " ".join(str(error).split())}, answer)
        answer.close()
        ray.shutdown()
        raise
    print(json.dumps({"dashboard": dashboard}), file=answer, flush=True)
    sys.stdin.read()
    serve.shutdown()
    ray.shutdown()


def _start(settings: dict[str, Any]) -> str:
    """Start Ray and Serve; return the dashboard's URL."""
    import ray
    from ray import serve

    context = ray.init(
        # Without this, a Ray that happens to run here or that RAY_ADDRESS names would be used instead.
        address="local",
        num_cpus=settings["cpus"],
        num_gpus=settings["accelerators"],
        _memory=settings["memory_bytes"],
        object_store_memory=settings["object_store_bytes"],
        include_dashboard=True,
        dashboard_host="127.0.0.1",
        log_to_driver=False,
    )
    serve.start(http_options={"host": settings["host"], "port": settings["port"]})
    return f"http://{context.dashboard_url}"


if __name__ == "__main__":
    main()
