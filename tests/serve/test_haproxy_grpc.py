"""Our rules for gRPC in the configuration that Ray writes, read by the real HAProxy; replicas are doubles."""

from concurrent import futures
from contextlib import ExitStack, contextmanager

import grpc
import pytest
from ray.serve._private import haproxy as rays
from ray.serve._private.common import RequestProtocol
from ray.serve.config import gRPCOptions
from ray.serve.generated import serve_pb2, serve_pb2_grpc

from endpoint_operator.local.ports import free_port
from serve_app.contract import grpc_options
from serve_app.http.haproxy_grpc import with_grpc_rules
from serve_app.rpc.messages import METHODS, SERVICE, new, parse
from tests.serve import proxied

NAMES = ("gateway", "a", "b-1")


class Healthy(serve_pb2_grpc.RayServeAPIServiceServicer):
    """Answers the proxy, which asks whether a replica lives."""

    def Healthz(self, request, context):
        return serve_pb2.HealthzResponse(message="success")


@contextmanager
def replica(name):
    """Serve a double that answers each request with its own name, as bytes; yield its port."""

    def answer(request, context):
        return f"{name} {dict(context.invocation_metadata()).get('application')} {len(request)}".encode()

    server = grpc.server(futures.ThreadPoolExecutor(4))
    serve_pb2_grpc.add_RayServeAPIServiceServicer_to_server(Healthy(), server)
    handlers = {method: grpc.unary_unary_rpc_method_handler(answer) for method in METHODS}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


def backend(name, *ports, fallback=None):
    def server(label, port):
        return rays.ServerConfig(name=label, host="127.0.0.1", port=port)

    return rays.BackendConfig(
        name=f"grpc-{name}",
        path_prefix="/",
        app_name=name,
        protocol=RequestProtocol.GRPC,
        servers=[server(f"{name}-{number}", port) for number, port in enumerate(ports)],
        fallback_server=server("fallback", fallback) if fallback else None,
    )


@contextmanager
def running(folder, backends):
    """Yield a channel to the gRPC port of HAProxy as Ray starts it."""
    port = free_port()
    options = gRPCOptions(**grpc_options(port))
    with (
        proxied.running(folder, {each.name: each for each in backends}, grpc_options=options),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield channel


@pytest.fixture(scope="module")
def channel(tmp_path_factory):
    """The proxy in front of the gateway, two models, and one that has Ray's own proxy and no replica."""
    with ExitStack() as stack:
        ports = {name: stack.enter_context(replica(name)) for name in (*NAMES, "fallback")}
        backends = [backend(name, ports[name], fallback=ports["fallback"]) for name in NAMES]
        backends.append(backend("idle", fallback=ports["fallback"]))
        yield stack.enter_context(running(tmp_path_factory.mktemp("haproxy"), backends))


def ask(channel, method, content, **options):
    """Return who answers, for which application, and the size of the request."""
    name, application, size = (
        channel.unary_unary(f"/{SERVICE}/{method}")(content, timeout=20, **options).decode().split()
    )
    return name, application, int(size)


@pytest.mark.parametrize(
    ("method", "field"), [("ModelReady", "name"), ("ModelMetadata", "name"), ("ModelInfer", "model_name")]
)
@pytest.mark.parametrize(
    ("model", "by"),
    [("a", "a"), ("b-1", "b-1"), ("idle", "gateway"), ("nope", "gateway"), ("", "gateway")],
)
def test_the_model_that_the_message_names_answers(channel, method, field, model, by):
    content = new(f"{method}Request", **{field: model}).SerializeToString()
    assert ask(channel, method, content) == (by, by, len(content))


@pytest.mark.parametrize("method", ["ServerLive", "ServerReady", "ServerMetadata"])
def test_what_is_about_the_server_is_the_gateways(channel, method):
    assert ask(channel, method, b"") == ("gateway", "gateway", 0)


@pytest.mark.parametrize("size", [20_000, 1_500_000])
def test_a_large_message_reaches_its_model(channel, size):
    content = infer_request("a", b"x" * size)
    assert ask(channel, "ModelInfer", content) == ("a", "a", len(content))


def infer_request(model, text):
    request = new("ModelInferRequest", model_name=model, raw_input_contents=[text])
    return request.SerializeToString()


def test_a_compressed_message_is_the_gateways(channel):
    content = infer_request("a", b"x" * 1000)
    by, _, size = ask(channel, "ModelInfer", content, compression=grpc.Compression.Gzip)
    assert (by, size) == ("gateway", len(content))
    assert parse("ModelInferRequest", content).model_name == "a"


@pytest.mark.parametrize("application", ["a", "nope", "gateway"])
def test_ray_s_own_metadata_do_not_change_it(channel, application):
    content = infer_request("b-1", b"x")
    assert ask(channel, "ModelInfer", content, metadata=[("application", application)])[0] == "b-1"


def junk():
    yield "no message", b"\xff" * 50
    yield "a field of another number first", b"\x12\x01a"
    yield "a number as the name", b"\x08\x01"
    yield "a name cut short", b"\x0a\x7fa"
    yield "a name of 4 GiB", b"\x0a\xff\xff\xff\xff\x0fa"
    for name in (b"a\r\nx-evil: 1", b"A", b"a b", b"\xff", b"%[path]", b"a" * 5000, b"../a"):
        yield repr(name[:20]), new("ModelReadyRequest").SerializeToString() + field(name)


def field(content):
    size, low = len(content), len(content) & 127
    return b"\x0a" + (bytes([size]) if size < 128 else bytes([low | 128, size >> 7])) + content


@pytest.mark.parametrize("content", [pytest.param(content, id=name) for name, content in junk()])
def test_what_names_no_model_is_the_gateways(channel, content):
    assert ask(channel, "ModelReady", content) == ("gateway", "gateway", len(content))


def test_while_there_is_no_gateway_the_client_is_told_to_try_again(tmp_path):
    with (
        replica("a") as one,
        replica("b") as other,
        running(tmp_path, [backend("a", one), backend("b", other)]) as channel,
    ):
        assert ask(channel, "ModelInfer", infer_request("b", b"x"))[0] == "b"
        with pytest.raises(grpc.RpcError) as refused:
            ask(channel, "ModelInfer", infer_request("nope", b"x"))
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "send it again" in refused.value.details()


def test_a_request_whose_replica_has_gone_is_the_gateways_or_may_be_sent_again(tmp_path):
    with replica("a") as gone:
        pass
    with replica("gateway") as gateway:
        backends = [backend("gateway", gateway), backend("a", gone)]
        with running(tmp_path, backends) as channel:
            assert outcome(channel, infer_request("a", b"x")) in ("gateway", grpc.StatusCode.UNAVAILABLE)


def outcome(channel, content):
    """Return who answers, or the status code."""
    try:
        return ask(channel, "ModelInfer", content)[0]
    except grpc.RpcError as error:
        return error.code()


def test_a_configuration_without_grpc_stays_as_it_is():
    config = "frontend http_frontend\n    bind :8000\n"
    assert with_grpc_rules(config) == config
