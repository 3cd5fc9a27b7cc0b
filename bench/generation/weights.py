"""The chat model's GGUF files: the one that the samples are built from, and others with the same weights."""

import subprocess
from pathlib import Path
from typing import Final

from rich.console import Console

from bench.environments import PEERS, cache_folder, python_of
from models.packages import smollm2_file

# What the package's own file has, Q4_1.
PACKED: Final = "int4"
# Part of the folder's name: a change of the recipe makes new files.
RECIPE: Final = 1


def gguf(number_format: str, console: Console) -> Path:
    """Return the file with weights in a format, int4 as they were packed; it is made when it is not there."""
    packed = smollm2_file()
    if number_format == PACKED:
        return packed
    folder = cache_folder() / f"gguf-{RECIPE}"
    file = folder / f"{packed.name.partition('.')[0]}.{number_format}.gguf"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(".unfinished")
        command = [str(python_of(PEERS / "llamacpp.txt", console)), str(PEERS / "requantize.py")]
        finished = subprocess.run(
            [*command, str(packed), str(unfinished), number_format],
            capture_output=True,
            text=True,
            check=False,
        )
        if finished.returncode:
            raise RuntimeError(f"{file.name} could not be made: {finished.stderr.strip()[-500:]}")
        unfinished.rename(file)
    return file
