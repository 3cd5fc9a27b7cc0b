"""The keys of clients on one machine: a file of names and keys becomes the folder that Ray reads."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import yaml

from serve_app.contract import ACCESS_VARIABLE

# A file of keys is small; a larger one is something else.
_MOST_BYTES: Final = 1024 * 1024
_DIGEST: Final = "sha256:"
_NAME: Final = re.compile(r"(?!\.\.)[-._a-zA-Z0-9]{1,253}")


class KeysFileError(Exception):
    """The file does not say which keys there are; the sentence never has a key."""


@dataclass(frozen=True)
class KeysOptions:
    """The file of keys, and what the chart has as `access`."""

    file: Path
    optional: bool = False
    hide: bool = False


class KeysFolder:
    """A folder like the one that Kubernetes mounts, for the processes of this machine's Ray."""

    def __init__(self, options: KeysOptions, folder: Path) -> None:
        self._options = options
        self._folder = folder

    @property
    def source(self) -> Path:
        """The file that it is made from."""
        return self._options.file

    def write(self) -> None:
        """Write what the file says; raise KeysFileError if it says nothing, and leave what was there."""
        keys = read_keys_file(self._options.file)
        try:
            self._write(keys)
        except OSError as error:
            raise KeysFileError(f"{self._folder}: cannot be written: {error}") from error

    def _write(self, keys: Mapping[str, str]) -> None:
        for part in ("access", "keys"):
            # Whoever cleans temporary folders may have removed them.
            (self._folder / part).mkdir(mode=0o700, parents=True, exist_ok=True)
        settings = {
            "keys": "optional" if self._options.optional else "required",
            "notAllowed": 404 if self._options.hide else 403,
        }
        _put(self._folder / "access" / "access.json", json.dumps(settings))
        for name, value in keys.items():
            _put(self._folder / "keys" / name, "\n".join(map(_hashed, value.splitlines())))
        for path in (self._folder / "keys").iterdir():
            if path.name not in keys:
                path.unlink()


@contextmanager
def keys_folder(options: KeysOptions | None) -> Iterator[KeysFolder | None]:
    """Yield the folder, which Ray's processes find by their environment; None where no keys are asked for.

    Raises KeysFileError if the file cannot be used.
    """
    if options is None:
        yield None
        return
    # Only this user may enter it.
    path = Path(tempfile.mkdtemp(prefix="model-endpoints-keys-"))
    before = os.environ.get(ACCESS_VARIABLE)
    try:
        folder = KeysFolder(options, path)
        folder.write()
        os.environ[ACCESS_VARIABLE] = str(path)
        yield folder
    finally:
        if before is None:
            os.environ.pop(ACCESS_VARIABLE, None)
        else:
            os.environ[ACCESS_VARIABLE] = before
        shutil.rmtree(path, ignore_errors=True)


def read_keys_file(path: Path) -> dict[str, str]:
    """Return the keys of a file by name: YAML with a line `name: key` for each, or a list of keys.

    Raises KeysFileError.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise KeysFileError(f"{path}: is larger than {_MOST_BYTES} bytes, so it is no file of keys")
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise KeysFileError(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark is not None else ""
        raise KeysFileError(f"{path}: is no YAML{where}; write a line 'name: key' for each key") from error
    if not isinstance(document, dict) or not document:
        raise KeysFileError(f"{path}: has no keys; write a line 'name: key' for each key")
    return {
        _name(path, number, name): _value(path, name, value)
        for number, (name, value) in enumerate(document.items(), 1)
    }


def _name(path: Path, number: int, name: Any) -> str:
    text = str(name)
    if not _NAME.fullmatch(text):
        # Somebody may have written the key in the place of the name.
        raise KeysFileError(f"{path}: name {number} is none; use letters, digits, '-', '_' and '.'")
    return text


def _value(path: Path, name: Any, value: Any) -> str:
    keys = value if isinstance(value, list) else [value]
    if not keys or not all(isinstance(key, str) and key.strip() for key in keys):
        raise KeysFileError(f"{path}: {name}: must be a text or a list of texts; put quotes around a number")
    return "\n".join(keys)


def _hashed(key: str) -> str:
    """Return the digest by which replicas know a key, so that no second file has the key itself."""
    key = key.strip()
    return key if not key or key.startswith(_DIGEST) else _DIGEST + sha256(key.encode()).hexdigest()


def _put(path: Path, text: str) -> None:
    """Replace a file at once; the time of its folder changes with it."""
    temporary = path.with_name(f"..{path.name}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
