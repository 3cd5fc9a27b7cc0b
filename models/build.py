"""Build the sample models from the command line; must not know how any of them is made."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Final

from models.catalogue import RECIPES
from models.recipe import Recipe, fingerprint, installed_versions, is_up_to_date, only_build_in, publish
from models.score import LowScoreError, read_heldout

FOLDER: Final = Path(__file__).parent


def build_model(recipe: Recipe, out: Path) -> str:
    """Build one model unless it is up to date, and return a line that says which."""
    started = time.monotonic()
    folder = out / recipe.name
    expected = fingerprint(FOLDER, installed_versions(recipe.packages))
    state = "up to date"
    if not is_up_to_date(folder, expected):
        publish(folder, expected, recipe.make)
        state = "built"
    heldout = read_heldout(folder)
    score = f", held-out {heldout}" if heldout else ""
    return f"{recipe.name}: {state} ({time.monotonic() - started:.1f} s{score})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the named models, or all, and return the exit code."""
    chosen = _parse(arguments)
    # Everything comes from installed packages; no model hub may be asked, and nothing else printed.
    os.environ |= {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        # The reader of GGUF files has a progress bar of its own.
        "TQDM_DISABLE": "1",
    }
    try:
        with only_build_in(chosen.out):
            for recipe in RECIPES:
                if not chosen.names or recipe.name in chosen.names:
                    print(build_model(recipe, chosen.out), flush=True)
    except PackageNotFoundError as error:
        return _fail(f"Python package {error.name!r} is not installed; models/README.md lists what is needed")
    except (LowScoreError, OSError) as error:
        return _fail(str(error))
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    names = [recipe.name for recipe in RECIPES]
    parser = argparse.ArgumentParser(prog="python -m models.build", description="Build the sample models.")
    parser.add_argument("names", metavar="NAME", nargs="*", help=f"one of {', '.join(names)}; default: all")
    parser.add_argument("--out", type=Path, default=FOLDER / "build", help="default: %(default)s")
    chosen = parser.parse_args(arguments)
    for name in chosen.names:
        if name not in names:
            parser.error(f"model {name!r} is not one of {', '.join(names)}")
    return chosen


def _fail(sentence: str) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
