"""The pinned kubectl and helm on the PATH of a person who has none, for as long as the cluster lives."""

import os
import shutil
from pathlib import Path
from typing import Final

from hack.toolchain.binaries import binary_path

_FOLDERS: Final = (Path("/usr/local/bin"), Path.home() / ".local/bin", Path.home() / "bin")
_NAMES: Final = ("kubectl", "helm")


def link_programs(record: Path) -> None:
    """Link the programs that the PATH lacks into a folder of the PATH, and list the links in `record`."""
    on_path = {Path(folder) for folder in os.get_exec_path()}
    folder = next((each for each in _FOLDERS if each in on_path and os.access(each, os.W_OK)), None)
    for name in _NAMES:
        if shutil.which(name) is not None:
            continue
        program = binary_path(name)
        if folder is None:
            print(f"There is no {name} on the PATH: run 'export PATH=$PATH:{program.parent}'")
            continue
        (folder / name).symlink_to(program)
        with record.open("a", encoding="utf-8") as file:
            file.write(f"{folder / name}\n")
        print(f"There was no {name}: {folder / name} is one, until the cluster is removed.")


def unlink_programs(record: Path) -> None:
    """Remove the links that `record` lists, if they are still links."""
    if record.exists():
        for line in record.read_text(encoding="utf-8").splitlines():
            link = Path(line)
            if link.is_symlink():
                link.unlink()
