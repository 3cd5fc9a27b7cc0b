"""Folders of the Go modules that our go.mod files require. Go downloads them when they are first needed."""

import json
from pathlib import Path

from hack.commands import run
from hack.paths import MODULES
from hack.toolchain.go_toolchain import find_go


def module_folder(module: str, path: str) -> Path:
    """Read-only folder of the Go module `path`, at the version that the go.mod of our `module` requires."""
    folder = MODULES / module
    answer = run(find_go(folder), "mod", "download", "-json", path, folder=folder)
    return Path(json.loads(answer)["Dir"])
