"""The gRPC service as Ray Serve takes it: a function that registers it, and the methods of a deployment.

Ray Serve starts a gRPC server in each replica and calls the method of the deployment that has the name of
the service's. Messages stay bytes until a protocol's module parses them, so the gateway relays them without
parsing, and Ray needs no class of ours to pass them on.
"""

import logging
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Final

import grpc

from serve_app.contract import MAX_BODY_BYTES
from serve_app.http.errors import BodyTooLargeError, Reply, ServingError, UnexpectedError
from serve_app.http.request_id import REQUEST_ID, id_of
from serve_app.rpc.messages import METHODS, SERVICE, publish_for_reflection

RPC_TYPE: Final = "application/grpc"
# Details go into a header, and every byte beyond ASCII takes three there.
MAX_DETAILS: Final = 500

# The status codes of errors, by the status that they have over HTTP.
STATUS_CODES: Final[Mapping[int, grpc.StatusCode]] = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
}

_OF_LIMITS: Final = ("x-ratelimit-", "retry-after")

logger = logging.getLogger("ray.serve")


class Serialized(bytes):
    """A message that is serialized already; Ray asks each answer to serialize itself."""

    def SerializeToString(self) -> bytes:
        return bytes(self)


def add_inference_service(servicer: Any, server: Any) -> None:
    """Register the service with a gRPC server of Ray; the contract names this function.

    Ray replaces what is called by a call of the deployment, so `servicer` is not used.
    """
    publish_for_reflection()
    handlers = {method: grpc.unary_unary_rpc_method_handler(_never_called) for method in METHODS}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))


def _never_called(request: bytes, context: Any) -> bytes:
    raise NotImplementedError("Ray Serve calls the deployment instead")


def rpc_reply(message: Any) -> Reply:
    """Return the reply with `message`, for the gateway to relay."""
    return Reply(message.SerializeToString(), RPC_TYPE)


class InferenceMethods:
    """The service's methods, for a deployment whose `answer_rpc` answers them."""

    @abstractmethod
    async def answer_rpc(self, method: str, request: bytes, metadata: Mapping[str, str]) -> Reply:
        """Return the reply to the serialized `request`: a message, or a sentence with the status of an error.

        `metadata` is the client's, with a request id. May raise a ServingError.
        """

    async def ServerLive(self, request: bytes, grpc_context: Any) -> Serialized:
        return await self._answer("ServerLive", request, grpc_context)

    async def ServerReady(self, request: bytes, grpc_context: Any) -> Serialized:
        return await self._answer("ServerReady", request, grpc_context)

    async def ModelReady(self, request: bytes, grpc_context: Any) -> Serialized:
        return await self._answer("ModelReady", request, grpc_context)

    async def ServerMetadata(self, request: bytes, grpc_context: Any) -> Serialized:
        return await self._answer("ServerMetadata", request, grpc_context)

    async def ModelMetadata(self, request: bytes, grpc_context: Any) -> Serialized:
        return await self._answer("ModelMetadata", request, grpc_context)

    async def ModelInfer(self, request: bytes, grpc_context: Any) -> Serialized:
        return await self._answer("ModelInfer", request, grpc_context)

    async def _answer(self, method: str, request: bytes, context: Any) -> Serialized:
        """Return the answer, or nothing with the status of an error.

        Ray would log an exception with its traceback, so the status is set without one.
        """
        metadata = _metadata(context)
        try:
            if len(request) > MAX_BODY_BYTES:
                raise BodyTooLargeError(
                    f"the message is larger than {MAX_BODY_BYTES} bytes; send fewer texts in one request"
                )
            reply = await self.answer_rpc(method, request, metadata)
        except ServingError as error:
            reply = rpc_error(error)
        except Exception:
            logger.exception("unexpected error on %s", method)
            reply = rpc_error(UnexpectedError())
        # gRPC takes names in small letters only.
        headers = {name.lower(): value for name, value in reply.headers.items()}
        limits = [(name, value) for name, value in headers.items() if name.startswith(_OF_LIMITS)]
        context.set_trailing_metadata([(REQUEST_ID, metadata[REQUEST_ID]), *limits])
        if reply.status == 200:
            return Serialized(reply.body)
        context.set_code(STATUS_CODES.get(reply.status, grpc.StatusCode.INTERNAL))
        context.set_details(reply.body.decode()[:MAX_DETAILS])
        return Serialized()


def _metadata(context: Any) -> dict[str, str]:
    """Return the client's metadata that is text, with a request id."""
    given = {name: value for name, value in context.invocation_metadata() if isinstance(value, str)}
    return given | {REQUEST_ID: id_of(given.get(REQUEST_ID))}


def rpc_error(error: ServingError) -> Reply:
    """Return the reply whose body is the sentence of `error`."""
    return Reply(str(error).encode(), RPC_TYPE, error.status, error.headers)
