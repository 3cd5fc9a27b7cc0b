"""The memory of this process, as Linux accounts for it."""

from pathlib import Path
from typing import Final

_ROLLUP: Final = Path("/proc/self/smaps_rollup")
# By the kernel's names. Proportional: a page that n processes share counts as 1/n of its size.
_FIELDS: Final = {"Rss": "resident_bytes", "Pss": "proportional_bytes"}


def memory_of_this_process() -> dict[str, int]:
    """Return resident and proportional bytes; nothing on systems that do not report them."""
    try:
        return parse_rollup(_ROLLUP.read_text())
    except OSError:
        return {}


def parse_rollup(text: str) -> dict[str, int]:
    """Return the sizes in the text of /proc/self/smaps_rollup."""
    sizes = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name in _FIELDS:
            sizes[_FIELDS[name]] = int(value.split()[0]) * 1024
    return sizes
