"""Make virtual environments below the user's cache, of peers and of clients, at locked versions."""

import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Final

from rich.console import Console

PEERS: Final = Path(__file__).parent / "peers"


def cache_folder() -> Path:
    """Return the folder for what the benchmark makes and keeps."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "model-endpoints" / "bench"


def python_of(requirements: Path, console: Console) -> Path:
    """Return the interpreter of the environment with these requirements; make it if it is not there."""
    name = requirements.stem
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    key = sha256(requirements.read_bytes() + version.encode()).hexdigest()[:12]
    folder = cache_folder() / key / name
    python = folder / "bin" / "python"
    finished = folder / "finished"
    if not finished.exists():
        console.print(f"Setting up {name} in {folder}")
        shutil.rmtree(folder, ignore_errors=True)
        _uv("venv", "--python", sys.executable, str(folder))
        _uv("pip", "install", "--python", str(python), "--requirements", str(requirements))
        finished.touch()
    return python


def _uv(*arguments: str) -> None:
    # uv is installed beside this interpreter, at the version of the lock.
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([str(uv), *arguments, "--quiet", "--no-progress"], check=True)
