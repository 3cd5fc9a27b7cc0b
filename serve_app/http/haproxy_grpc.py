"""Our rules for the gRPC port in the configuration that Ray writes for HAProxy.

Ray's own rules choose the backend by a header `application`, which only Ray's clients send. The name of the
model is the first field of each request that is about a model, so HAProxy reads it there: five bytes of
gRPC's framing, then the protobuf message. What names no model, or one without a replica, is the gateway's.
"""

import re
from typing import Final

from serve_app.http.errors import BODY_TIMEOUT_SECONDS
from serve_app.http.haproxy_answers import status_rules

_FRONTEND: Final = re.compile(r"^frontend grpc_frontend\n(?: .*\n)*?    bind .*\n", re.MULTILINE)
_BACKEND: Final = re.compile(r"^backend grpc-\S+\n(?: .*\n|\n)*", re.MULTILINE)
_FALLBACK: Final = re.compile(r"^ +server \S+ \S+ proto h2 check backup\n", re.MULTILINE)
_NOWHERE: Final = re.compile(r"^(backend default_grpc_backend\n)(?: .*\n|\n)*", re.MULTILINE)

# Of Ray's own service.
LIST_APPLICATIONS: Final = "/ray.serve.RayServeAPIService/ListApplications"

_RULES: Final = f"""\
    # Ray would name all models, whoever asks.
    http-request return status 200 content-type application/grpc hdr grpc-status 12 \
hdr grpc-message "the service does not list its models" if {{ path {LIST_APPLICATIONS} }}
    http-request wait-for-body time {BODY_TIMEOUT_SECONDS:g}s if METH_POST
    http-request set-var(txn.model) req.body,bytes(5),protobuf(1) if METH_POST
    http-request set-var-fmt(txn.backend) grpc-%[var(txn.model)]
    acl is_name var(txn.model) -m reg ^[-.a-z0-9]+$
    acl has_replica var(txn.backend),nbsrv ge 1
    http-request set-header application gateway
    http-request set-header application %[var(txn.model)] if is_name has_replica
"""

_UNAVAILABLE: Final = """\
    mode http
    http-request return status 200 content-type application/grpc hdr grpc-status 14 hdr grpc-message \
"the service has no route yet, because it is starting; send it again"
"""


def with_grpc_rules(config: str) -> str:
    """Return `config` with our rules; as it is, if Ray serves no gRPC or has changed its configuration."""
    config, found = _FRONTEND.subn(lambda match: match[0] + _RULES + status_rules(), config)
    if not found:
        return config
    # Ray's own proxy waits for a replica without an end; without it, the client is told to try again.
    config = _BACKEND.sub(lambda match: _FALLBACK.sub("", match[0]), config)
    return _NOWHERE.sub(lambda match: match[1] + _UNAVAILABLE, config)
