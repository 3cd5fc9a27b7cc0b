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
_DIGEST: Final = b"sha256:"
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
        if not _NAME.match(name):
            complaints.append(f"{name!r} is no name of a key; it has to match {NAME_PATTERN}")
            continue
        lines = [line for line in (line.strip() for line in value.splitlines()) if line]
        if not lines:
            complaints.append(f"the key {name!r} is empty")
        for line in lines:
            try:
                digest = _digest(name, line)
            except ValueError as error:
                complaints.append(str(error))
                continue
            if names.setdefault(digest, name) != name:
                complaints.append(f"{name!r} has a key of {names[digest]!r}, whose name holds for it")
    return Keys(names, tuple(complaints))


def _digest(name: str, line: bytes) -> bytes:
    """Return the digest of a line; raise ValueError if it begins like one and is none."""
    if not line.lower().startswith(_DIGEST):
        return sha256(line).digest()
    digits = line[len(_DIGEST) :].decode("ascii", "replace").strip()
    if not _HEXADECIMAL.match(digits):
        raise ValueError(f"a line of the key {name!r} begins with sha256: and has no 64 hexadecimal digits")
    return bytes.fromhex(digits)
