"""Read the body of a request, within limits of size, time and media type."""

import asyncio
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

# The media types that a body may have, each with the header that it requires, or None.
MediaTypes = Mapping[str, str | None]

# A client does not read our 413 while it is still sending, so a body up to this size is read and dropped.
MAX_DROPPED_BYTES: Final = 64 * 1024 * 1024


async def read_body(request: Request, media_types: MediaTypes) -> bytes:
    """Return the request's body.

    Raises 413 above MAX_BODY_BYTES, 415 for a type that is not in `media_types`, and 408 if the body does
    not arrive in time.
    """
    _require_media_type(request, media_types)
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
    if size > MAX_BODY_BYTES:
        raise BodyTooLargeError(
            f"the body is larger than {MAX_BODY_BYTES} bytes; send fewer texts in one request",
            limit=MAX_BODY_BYTES,
        )
    if not chunks:
        raise MalformedBodyError("the body is empty; send a JSON object")
    return b"".join(chunks)


def _require_media_type(request: Request, media_types: MediaTypes) -> None:
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise UnsupportedMediaTypeError(f"content-encoding: got {encoding!r}; must be absent")
    stated = request.headers.get("content-type", JSON_TYPE)
    media_type = stated.partition(";")[0].strip().lower()
    if media_type in media_types:
        needed = media_types[media_type]
        if needed is None or needed in request.headers:
            return
    raise UnsupportedMediaTypeError(f"content-type: got {stated!r}; must be '{JSON_TYPE}'")
