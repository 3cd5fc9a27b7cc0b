"""Quote foreign values in messages: recognisable, and never long. Pure text."""

from typing import Any, Final

LONGEST_SHOWN: Final = 80


def quoted(value: Any) -> str:
    """Return `value` as a Python literal, cut where it gets long."""
    return shortened(repr(value))


def shortened(text: str) -> str:
    """Return `text`, cut where it gets long."""
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"
