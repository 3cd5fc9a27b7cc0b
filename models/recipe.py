"""Decide whether a model folder is up to date and replace it as a whole; must not know any model."""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

FINGERPRINT_FILE: Final = "recipe.json"
# One list for all models: a list for each would miss an import sooner or later.
SOURCE_PATTERNS: Final = ("*.py", "heldout/*.tsv", "development/*.tsv")


@dataclass(frozen=True)
class Recipe:
    """A model's name, the packages its weights depend on, and what writes it into an empty folder."""

    name: str
    packages: tuple[str, ...]
    make: Callable[[Path], None]


def installed_versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Return the version of each package without importing it."""
    return {package: version(package) for package in packages}


def fingerprint(sources: Path, versions: Mapping[str, str]) -> str:
    """Return a hash of the recipe files in `sources` and of the package versions."""
    digest = hashlib.sha256(json.dumps(versions, sort_keys=True).encode())
    for path in sorted(path for pattern in SOURCE_PATTERNS for path in sources.glob(pattern)):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"\n{path.relative_to(sources).as_posix()} {content}".encode())
    return digest.hexdigest()


def is_up_to_date(folder: Path, expected: str) -> bool:
    """Tell whether the folder was published with this fingerprint."""
    path = folder / FINGERPRINT_FILE
    return path.exists() and json.loads(path.read_text(encoding="utf-8"))["fingerprint"] == expected


def publish(folder: Path, expected: str, make: Callable[[Path], None]) -> None:
    """Let `make` fill a sibling of `folder`, then put it in the place of `folder`."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        make(partial)
        document = json.dumps({"fingerprint": expected})
        (partial / FINGERPRINT_FILE).write_text(document + "\n", encoding="utf-8")
        _let_everyone_read(partial)
        _replace(folder, partial)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _let_everyone_read(folder: Path) -> None:
    # Weights are written for their owner only, but whoever serves them may be another user.
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _replace(folder: Path, successor: Path) -> None:
    previous = folder.with_name(f".{folder.name}.previous")
    shutil.rmtree(previous, ignore_errors=True)
    # A folder can only be renamed onto an empty one, so the old folder steps aside first.
    if folder.exists():
        folder.rename(previous)
    try:
        successor.rename(folder)
    except OSError:
        if previous.exists():
            previous.rename(folder)
        raise
    shutil.rmtree(previous, ignore_errors=True)


@contextmanager
def only_build_in(out: Path) -> Iterator[None]:
    """Wait until no other build writes into `out`, and keep others waiting meanwhile."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
