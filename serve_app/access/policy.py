"""Who a client is, and whether it may ask a model; pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from serve_app.access.keys import Keys
from serve_app.http.errors import NotAllowedError, UnauthorizedError, UnknownModelError
from serve_app.text import quoted

_BEARER: Final = "bearer"


class KeysMode(StrEnum):
    """Whether clients need keys."""

    # Nobody is asked for a key.
    OFF = "off"
    # A client without a key may ask the endpoints that have no list; one with a wrong key is refused.
    OPTIONAL = "optional"
    REQUIRED = "required"


@dataclass(frozen=True)
class Policy:
    """What holds for all endpoints. With `hides`, an endpoint is unknown to those who may not ask it."""

    mode: KeysMode = KeysMode.OFF
    hides: bool = False
    keys: Keys = field(default_factory=Keys)

    def caller_of(self, headers: Mapping[str, str]) -> str:
        """Return the name of the client's key, empty without one; raise UnauthorizedError if it is refused.

        The key is in `authorization: Bearer` or in `x-api-key`; header names are in small letters.
        """
        if self.mode is KeysMode.OFF:
            return ""
        token = _token(headers)
        if token is None:
            if self.mode is KeysMode.REQUIRED:
                raise UnauthorizedError("send a key, as in 'Authorization: Bearer KEY' or 'x-api-key: KEY'")
            return ""
        name = self.keys.name_of(token)
        if name is None:
            raise UnauthorizedError("the key is not known")
        return name

    def allows(self, caller: str, allow: Collection[str]) -> bool:
        """Return whether this caller may ask an endpoint; an empty list lets all in."""
        return not allow or caller in allow

    def require(self, caller: str, allow: Collection[str], name: str) -> None:
        """Raise NotAllowedError if the caller may not ask the endpoint `name`, or what hides it."""
        if self.allows(caller, allow):
            return
        if self.hides:
            raise unknown_model(name)
        who = f"the key {caller!r}" if caller else "a client without a key"
        raise NotAllowedError(f"{who} may not ask {name!r}")


def unknown_model(name: str, known: Sequence[str] | None = None) -> UnknownModelError:
    """Return the error for a name that no model has, with those that the client may know."""
    if known is None:
        return UnknownModelError(f"no model is named {quoted(name)}; GET /v2/models has those that are")
    shown = ", ".join(known) if known else "there are none"
    return UnknownModelError(f"no model is named {quoted(name)}; known models: {shown}", models=list(known))


def _token(headers: Mapping[str, str]) -> bytes | None:
    """Return the key that a client has sent, as the bytes that it has sent."""
    scheme, _, token = headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() == _BEARER and token.strip():
        return _bytes(token.strip())
    own = headers.get("x-api-key", "").strip()
    return _bytes(own) if own else None


def _bytes(text: str) -> bytes:
    # Headers come as Latin-1, whatever they are; what is no Latin-1 is no header, and no key.
    return text.encode("latin-1", "replace")


def policy_of(document: Any, keys: Keys) -> Policy:
    """Return the policy of an access.json; raise ValueError if it is none."""
    if not isinstance(document, Mapping):
        raise ValueError("it is no JSON object")
    return Policy(KeysMode(document.get("keys", KeysMode.OFF)), document.get("notAllowed") == 404, keys)
