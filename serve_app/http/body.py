"""Read the body of a request, within limits of size, time and media type, plain or in gzip."""

import asyncio
import codecs
import zlib
from collections.abc import Mapping
from typing import Final

from starlette.requests import Request

from serve_app.contract import MAX_BODY_BYTES
from serve_app.http.errors import (
    BODY_TIMEOUT_SECONDS,
    JSON_TYPE,
    BodyTimeoutError,
    BodyTooLargeError,
    MalformedBodyError,
    UnsupportedMediaTypeError,
)
from serve_app.text import quoted

# The media types that a body may have, each with the header that it requires, or None.
MediaTypes = Mapping[str, str | None]

# A client does not read our 413 while it is still sending, so a body up to this size is read and dropped.
MAX_DROPPED_BYTES: Final = 64 * 1024 * 1024

# zlib's number for "gzip, with any size of window".
_GZIP: Final = 31
_ENCODINGS: Final = ("identity", "gzip", "x-gzip")


async def read_body(request: Request, media_types: MediaTypes) -> bytes:
    """Return the request's body, without compression and without a byte order mark.

    Raises 413 above MAX_BODY_BYTES, 415 for a type that is not in `media_types`, and 408 if the body does
    not arrive in time.
    """
    media_type, encoding = _media_type(request, media_types), _encoding(request)
    body = await _received(request)
    if encoding != "identity":
        body = _unpacked(body)
    if media_type == JSON_TYPE:
        body = body.removeprefix(codecs.BOM_UTF8)
    if not body:
        raise MalformedBodyError("the body is empty; send a JSON object")
    return body


async def _received(request: Request) -> bytes:
    """Return the bytes of the body; raise 413 if they are too many, and 408 if they take too long."""
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= MAX_BODY_BYTES:
                    chunks.append(chunk)
                elif size > MAX_DROPPED_BYTES:
                    break
    except TimeoutError as error:
        raise BodyTimeoutError from error
    _require_size(size)
    return b"".join(chunks)


def _require_size(size: int) -> None:
    if size > MAX_BODY_BYTES:
        raise BodyTooLargeError(
            f"the body is larger than {MAX_BODY_BYTES} bytes; send fewer texts in one request",
            limit=MAX_BODY_BYTES,
        )


def _unpacked(body: bytes) -> bytes:
    """Return what is in a gzip body; never more than one byte beyond MAX_BODY_BYTES is unpacked."""
    stream = zlib.decompressobj(_GZIP)
    try:
        plain = stream.decompress(body, MAX_BODY_BYTES + 1)
    except zlib.error as error:
        raise MalformedBodyError(f"content-encoding is gzip, and the body is not: {error}") from error
    _require_size(len(plain))
    if not stream.eof or stream.unused_data:
        raise MalformedBodyError("content-encoding is gzip, and the body is not one whole gzip stream")
    return plain


def _encoding(request: Request) -> str:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in _ENCODINGS:
        raise UnsupportedMediaTypeError(
            f"content-encoding: got {quoted(encoding)}; must be gzip, identity or absent"
        )
    return encoding


def _media_type(request: Request, media_types: MediaTypes) -> str:
    """Return the stated media type, which is one of `media_types`."""
    stated = request.headers.get("content-type", JSON_TYPE)
    media_type = stated.partition(";")[0].strip().lower()
    if media_type in media_types:
        needed = media_types[media_type]
        if needed is None or needed in request.headers:
            return media_type
    raise UnsupportedMediaTypeError(f"content-type: got {stated!r}; must be '{JSON_TYPE}'")
