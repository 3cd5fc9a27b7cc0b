"""Find the folder of a Go module that one of our go.mod files requires; Go downloads it if need be."""

import json
from pathlib import Path

from hack.commands import run
from hack.paths import MODULES
from hack.toolchain.go_toolchain import find_go


def module_folder(module: str, path: str) -> Path:
    """Return the read-only folder of the Go module `path`, at the version that our `module` requires."""
    folder = MODULES / module
    answer = run(find_go(folder), "mod", "download", "-json", path, folder=folder)
    return Path(json.loads(answer)["Dir"])
