"""Put the pinned kubectl on the PATH of a person who has none, for as long as the cluster lives."""

import os
import shutil
from pathlib import Path
from typing import Final

from tests.cluster.binaries import binary_path

_FOLDERS: Final = (Path("/usr/local/bin"), Path.home() / ".local/bin", Path.home() / "bin")
_NAME: Final = "kubectl"


def link_kubectl(memory: Path) -> None:
    """Link kubectl into a folder of the PATH unless there is one, and note the link in the file `memory`."""
    if shutil.which(_NAME) is not None:
        return
    program = binary_path(_NAME)
    on_path = {Path(folder) for folder in os.get_exec_path()}
    for folder in _FOLDERS:
        if folder in on_path and os.access(folder, os.W_OK):
            (folder / _NAME).symlink_to(program)
            memory.write_text(str(folder / _NAME), encoding="utf-8")
            print(f"There was no kubectl: {folder / _NAME} is one, until the cluster is removed.")
            return
    print(f"There is no kubectl on the PATH: run 'export PATH=$PATH:{program.parent}'")


def unlink_kubectl(memory: Path) -> None:
    """Remove the link that the file `memory` notes, if it is still a link."""
    if memory.exists():
        link = Path(memory.read_text(encoding="utf-8"))
        if link.is_symlink():
            link.unlink()
