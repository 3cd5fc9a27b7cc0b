"""Make the virtual environment of each peer, below the user's cache, at the versions of its requirements."""

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


def python_of(peer: str, console: Console) -> Path:
    """Return the interpreter of the peer's environment, which is made when it is not there."""
    requirements = PEERS / f"{peer}.txt"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    key = sha256(requirements.read_bytes() + version.encode()).hexdigest()[:12]
    folder = cache_folder() / key / peer
    python = folder / "bin" / "python"
    finished = folder / "finished"
    if not finished.exists():
        console.print(f"Setting up {peer} in {folder}")
        shutil.rmtree(folder, ignore_errors=True)
        _uv("venv", "--python", sys.executable, str(folder))
        _uv("pip", "install", "--python", str(python), "--requirements", str(requirements))
        finished.touch()
    return python


def _uv(*arguments: str) -> None:
    # uv is installed beside this interpreter, at the version of the lock.
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([str(uv), *arguments, "--quiet", "--no-progress"], check=True)
