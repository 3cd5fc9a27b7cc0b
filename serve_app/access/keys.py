"""The keys of clients: names, and the digests of what clients send. Pure.

Only SHA-256 digests are held. A lookup of one takes a time that tells at most something about digests, of
which a client can choose no part.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

# What Kubernetes allows as an entry of a Secret; it becomes a label of metrics and a word in logs.
NAME_PATTERN: Final = r"^[-._a-zA-Z0-9]{1,253}$"

_NAME: Final = re.compile(NAME_PATTERN)
_DIGEST: Final = "sha256:"
_HEXADECIMAL: Final = re.compile(r"^[0-9a-fA-F]{64}$")


@dataclass(frozen=True)
class Keys:
    """All keys, as names by digest, and sentences about entries that are none, which never have a key."""

    names: Mapping[bytes, str] = field(default_factory=dict, repr=False)
    complaints: tuple[str, ...] = ()

    def name_of(self, token: bytes) -> str | None:
        """Return the name of the key that a client has sent; None if there is no such key."""
        return self.names.get(sha256(token).digest())


def read_keys(entries: Mapping[str, bytes]) -> Keys:
    """Return the keys of a Secret's entries, which are the names.

    The value is a key, or several keys with a line for each, as there are while one replaces another. A line
    `sha256:` with 64 hexadecimal digits is the digest of a key. What is no key takes no other one with it.
    """
    names: dict[bytes, str] = {}
    complaints = []
    for name, value in sorted(entries.items()):
        try:
            digests = _digests(name, value)
        except ValueError as error:
            complaints.append(str(error))
            continue
        for digest in digests:
            if names.setdefault(digest, name) != name:
                complaints.append(f"{name!r} has a key of {names[digest]!r}, whose name holds for it")
    return Keys(names, tuple(complaints))


def _digests(name: str, value: bytes) -> list[bytes]:
    """Return the digests of the keys of one entry; raise ValueError if it is none."""
    if not _NAME.match(name):
        raise ValueError(f"{name!r} is no name of a key; it has to match {NAME_PATTERN}")
    lines = [line for line in (line.strip() for line in value.splitlines()) if line]
    if not lines:
        raise ValueError(f"the key {name!r} is empty")
    return [_digest(name, line) for line in lines]


def _digest(name: str, line: bytes) -> bytes:
    if not line.startswith(_DIGEST.encode()):
        return sha256(line).digest()
    digits = line.removeprefix(_DIGEST.encode()).decode("ascii", "replace").strip()
    if not _HEXADECIMAL.match(digits):
        raise ValueError(f"the key {name!r} begins with {_DIGEST}, without 64 hexadecimal digits behind it")
    return bytes.fromhex(digits)
