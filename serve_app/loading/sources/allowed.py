"""What a replica checks of `sources.allow` before it loads: the operator has checked the URI, but not links.

The chart mounts the rules as a file with one in each line, beside who may ask. The kubelet changes it in pods
that run.
"""

import os
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Final

from serve_app.contract import ACCESS_VARIABLE
from serve_app.loading.sources.errors import SourceError
from serve_app.loading.sources.folders import folder_of_rule
from serve_app.source_rules import objection

# In the folder that ACCESS_VARIABLE names.
RULES_FILE: Final = "access/sources"

# The operator reads an edited list at once; the kubelet may take a minute or more to change the file here.
PATIENCE_SECONDS: Final = 120.0
POLL_SECONDS: Final = 1.0

_SECRET: Final = ("/var/run/secrets", "/proc", "/sys")
# A model's folder has far fewer entries; without a bound, a link to `/` would take hours.
_MOST_ENTRIES: Final = 100_000


def allowing_rules(uri: str) -> Sequence[str]:
    """Return the rules, which let a model come from `uri`; none if there are none.

    Raises SourceError if they do not within PATIENCE_SECONDS.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while reason := objection(uri, rules := _read_rules()):
        if time.monotonic() >= deadline:
            raise SourceError(reason)
        time.sleep(POLL_SECONDS)
    return rules


def require_inside(uri: str, folder: Path, rules: Sequence[str]) -> None:
    """Raise SourceError if `folder`, or a link in it, is really in a place that no rule lets in.

    Whoever can change the files may still change them afterwards.
    """
    allowed = [place for rule in rules if (place := folder_of_rule(rule)) is not None]
    for path in _real_paths(folder):
        if not any(path.is_relative_to(place) for place in allowed):
            raise SourceError(
                f"{uri}: a link leads to {path}, where sources.allow of the chart lets no model be"
            )


def require_no_secrets(uri: str, folder: Path) -> None:
    """Raise SourceError if `folder`, or a link in it, leads to what only the server may read.

    Keys of clients, tokens and the environment of processes could become a part of the model's answers.
    """
    secret = [Path(os.path.realpath(place)) for place in (*_SECRET, os.environ.get(ACCESS_VARIABLE)) if place]
    for path in chain([Path(os.path.abspath(folder))], _real_paths(folder)):
        if any(path.is_relative_to(place) or place.is_relative_to(path) for place in secret):
            raise SourceError(f"{uri}: leads to {path}, where secrets of the server are")


def _read_rules() -> list[str]:
    folder = os.environ.get(ACCESS_VARIABLE)
    if not folder:
        return []
    file = Path(folder) / RULES_FILE
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"the rules of sources.allow in {file} cannot be read: {error}") from error


def _real_paths(folder: Path) -> Iterator[Path]:
    """Yield where `folder` really is, and where the links in it and in the folders below it lead."""
    seen: set[str] = set()
    count = 0
    waiting = [os.path.realpath(folder)]
    yield Path(waiting[0])
    while waiting:
        here = waiting.pop()
        if here in seen:
            continue
        seen.add(here)
        entries = _entries(here)
        count += len(entries)
        if count > _MOST_ENTRIES:
            raise SourceError(f"{folder}: has more than {_MOST_ENTRIES} entries, so it is no model's folder")
        for entry in entries:
            target = os.path.realpath(entry.path) if entry.is_symlink() else entry.path
            if entry.is_symlink():
                yield Path(target)
            if os.path.isdir(target):
                waiting.append(target)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        # What cannot be read is not loaded either.
        return []
