"""Put models into an image: `python -m serve_app.loading.bake --built DIR --into DIR MODEL…`."""

import argparse
import shutil
import sys
from pathlib import Path

from serve_app.loading.sources import SourceError, fetch


def bake(model: str, built: Path, into: Path) -> Path:
    """Copy `model` to a folder below `into` and return that folder.

    A model is the name of a folder below `built`, or hf://org/name with an optional @revision, whose folder
    is org/name. Raises SourceError if there is no such model.
    """
    if model.startswith("hf://"):
        uri, _, revision = model.partition("@")
        source = fetch(uri, revision)
        target = into / uri.removeprefix("hf://")
    else:
        source = built / model
        target = into / model
    if not (source / "config.json").is_file():
        raise SourceError(f"{model}: there is no config.json in {source}")
    # The hub's cache consists of links to files that the image will not have.
    shutil.copytree(source, target, symlinks=False, dirs_exist_ok=True)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m serve_app.loading.bake", description=__doc__)
    parser.add_argument("--built", type=Path, required=True, help="folder of models that were built here")
    parser.add_argument("--into", type=Path, required=True, help="folder of the image, such as /models")
    parser.add_argument(
        "models", nargs="*", metavar="MODEL", help="a folder's name, or hf://org/name@revision"
    )
    arguments = parser.parse_args()
    arguments.into.mkdir(parents=True, exist_ok=True)
    for model in arguments.models:
        try:
            print(f"{model}: file://{bake(model, arguments.built, arguments.into)}")
        except SourceError as error:
            sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
