"""The folder that says who may ask: read anew when it has changed, so that keys change without a restart.

`access/access.json` has the policy, and each file of `keys` a key by its name, as Kubernetes mounts a
ConfigMap and a Secret. The command on one machine writes the same.
"""

import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from serve_app.access.keys import Keys, read_keys
from serve_app.access.policy import KeysMode, Policy, policy_of
from serve_app.contract import ACCESS_VARIABLE

# How often it is looked whether the folder has changed, while there are requests.
CHECK_SECONDS: Final = 2.0

_SETTINGS: Final = "access"
_KEYS: Final = "keys"

# Serve sends this logger's records to the replica's log.
logger = logging.getLogger("ray.serve")


class AccessFolder:
    """The policy of the folder; without a folder, nobody is asked for a key.

    What can not be read leaves the policy that held before, and at the start lets nobody in.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._policy = Policy() if folder is None else Policy(KeysMode.REQUIRED)
        self._seen: tuple[object, ...] = ()
        self._checked = float("-inf")
        self._complaint = ""
        self._looked_twice = False

    @classmethod
    def of_environment(cls) -> "AccessFolder":
        """Return that of ACCESS_VARIABLE."""
        folder = os.environ.get(ACCESS_VARIABLE)
        return cls(Path(folder) if folder else None)

    @property
    def policy(self) -> Policy:
        """The policy that holds now."""
        now = time.monotonic()
        if self._folder is not None and now - self._checked > CHECK_SECONDS:
            self._checked = now
            self._look(self._folder)
        return self._policy

    def _look(self, folder: Path) -> None:
        try:
            seen = tuple(_changed_at(folder / part) for part in (_SETTINGS, _KEYS))
            if seen == self._seen and self._looked_twice:
                return
            # A change in the same tick of the clock as the last look has not changed the time.
            self._looked_twice = seen == self._seen
            policy = policy_of(_settings(folder), _keys(folder))
        except (OSError, ValueError) as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                logger.error("%s does not say who may ask: %s", folder, error)
            return
        is_new = policy != self._policy
        self._policy, self._seen, self._complaint = policy, seen, ""
        if not is_new:
            return
        for complaint in policy.keys.complaints:
            logger.error("%s", complaint)
        logger.info("keys are %s; %d are known", policy.mode, len(policy.keys.names))


def _changed_at(folder: Path) -> int | None:
    """Return when a file of the folder was replaced; None without a folder."""
    try:
        return folder.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _settings(folder: Path) -> object:
    return json.loads((folder / _SETTINGS / "access.json").read_text(encoding="utf-8"))


def _keys(folder: Path) -> Keys:
    return read_keys(_files(folder / _KEYS))


def _files(folder: Path) -> Mapping[str, bytes]:
    """Return the content of each file; those of Kubernetes' own begin with two dots."""
    if not folder.is_dir():
        return {}
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if not path.name.startswith("..") and path.is_file()
    }
