"""The front of a replica: every request passes it, however it has come.

It knows who asks, refuses who may not, counts what a key has asked for, and tells the observers of requests
that are over.
"""

import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from starlette.requests import ClientDisconnect

from serve_app.access.folder import AccessFolder
from serve_app.access.limits import KeyLimiter, KeyLimits
from serve_app.access.policy import KeysMode, Policy
from serve_app.contract import UserConfig
from serve_app.engine.records import Observers, RequestRecord, Transport, set_current_record
from serve_app.http.errors import ClientGoneError, Reply, ServingError, UnexpectedError
from serve_app.http.request_id import REQUEST_ID, id_of
from serve_app.http.streaming import StreamedReply

# Serve sends this logger's records to the replica's log.
logger = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class Arrival:
    """A request before its body is read. `headers` have names in small letters."""

    verb: str
    transport: Transport
    headers: Mapping[str, str]


Work = Callable[[RequestRecord], Awaitable[Reply | StreamedReply]]


class Front:
    """The front of the model `name`, whose settings may be replaced at any time."""

    def __init__(self, name: str, access: AccessFolder, observers: Observers) -> None:
        self.observers = observers
        self.limiter = KeyLimiter()
        self._name = name
        self._access = access
        self._allow: frozenset[str] = frozenset()

    def reconfigure(self, user_config: UserConfig) -> None:
        """Apply new settings."""
        self._allow = frozenset(user_config.allow)
        self.limiter.limits = KeyLimits(
            user_config.key_requests_per_minute,
            user_config.key_tokens_per_minute,
            user_config.key_requests_at_once,
        )

    def caller_of(self, headers: Mapping[str, str]) -> str:
        """Return who asks for this model; raise a ServingError if that is not allowed."""
        return self._caller_of(self._access.policy, headers)

    def _caller_of(self, policy: Policy, headers: Mapping[str, str]) -> str:
        caller = policy.caller_of(headers)
        policy.require(caller, self._allow, self._name)
        return caller

    async def answer(self, arrival: Arrival, work: Work) -> Reply | StreamedReply:
        """Return what `work` returns, with the headers of limits; raise only ServingErrors, with them too."""
        record = RequestRecord(
            id_of(arrival.headers.get(REQUEST_ID)), arrival.verb, arrival.transport, arrival.headers
        )
        set_current_record(record)
        counted = False
        try:
            policy = self._access.policy
            record.caller = self._caller_of(policy, arrival.headers)
            record.has_keys = policy.mode is not KeysMode.OFF
            if self.limiter.applies:
                self.limiter.begin(record.caller, record.arrived)
                counted = True
            reply = await work(record)
        except BaseException as error:
            failure = _failure(error, record)
            self._over(record, failure.status, failure.code, counted=counted)
            failure.headers = {**failure.headers, **self._headers(record)}
            if failure is error or isinstance(failure, ClientGoneError):
                raise
            raise failure from error
        if isinstance(reply, StreamedReply):
            return self._streamed(record, reply, counted=counted)
        record.reply = reply
        self._over(record, reply.status, "", counted=counted)
        headers = self._headers(record)
        if not headers:
            return reply
        return Reply(reply.body, reply.content_type, reply.status, {**reply.headers, **headers})

    def _headers(self, record: RequestRecord) -> Mapping[str, str]:
        if not self.limiter.applies or record.is_refused:
            return {}
        return self.limiter.headers(record.caller, time.monotonic())

    def _streamed(self, record: RequestRecord, reply: StreamedReply, *, counted: bool) -> StreamedReply:
        """Return the stream, whose end is that of the request."""
        record.streamed = True

        def over(status: int = reply.head.status, code: str = "") -> None:
            self._over(record, status, code, counted=counted)

        async def chunks() -> AsyncGenerator[bytes, None]:
            async for chunk in reply.chunks:
                if record.first_output is None:
                    record.first_output = time.monotonic()
                yield chunk
            over()

        async def close() -> None:
            try:
                await reply.aclose()
            finally:
                over(ClientGoneError.status, ClientGoneError.code)

        head = replace(reply.head, headers={**reply.head.headers, **self._headers(record)})
        return StreamedReply(chunks(), close, head)

    def _over(self, record: RequestRecord, status: int, code: str, *, counted: bool) -> None:
        """Count a request that is over, once."""
        if record.ended:
            return
        record.ended = time.monotonic()
        if not record.status:
            # A stream that has failed has its own.
            record.status, record.code = status, code
        if counted:
            self.limiter.end(record.caller, record.input_tokens + record.output_tokens)
        self.observers.tell_of_request(record)


def _failure(error: BaseException, record: RequestRecord) -> ServingError:
    """Return the error that a request ends with."""
    if isinstance(error, ServingError):
        return error
    if isinstance(error, ClientDisconnect) or not isinstance(error, Exception):
        return ClientGoneError("the client has closed its connection, or the replica stops")
    logger.exception("unexpected error on %s in request %s", record.verb, record.id)
    return UnexpectedError()
