"""What the commands share: how they read their files, and how they say what is wrong."""

from pathlib import Path
from typing import Annotated

import typer
import yaml
from pydantic import ValidationError
from rich.console import Console

from endpoint_operator.api.profiles import Catalogue, ProfileList, parse_catalogue
from endpoint_operator.api.validation import describe
from endpoint_operator.cli.display import Display
from endpoint_operator.local.manifests import Workspace

# Answers go to standard output; what is only for people, to standard error.
messages = Display(Console(stderr=True))

Files = Annotated[
    list[Path], typer.Argument(metavar="FILES…", help="Manifests, or folders of manifests (*.yaml, *.json).")
]


def fail(sentence: str) -> typer.Exit:
    """Say what is wrong, and return what ends the command."""
    messages.complain(sentence)
    return typer.Exit(1)


def read_manifests(files: list[Path]) -> Workspace:
    """Return the endpoints of `files`; end the command if anything is wrong with them."""
    workspace = Workspace(files)
    problems = workspace.reread()
    for problem in problems:
        messages.complain(str(problem))
    if problems:
        raise typer.Exit(1)
    return workspace


def catalogue_of(path: Path | None) -> Catalogue:
    """Return the catalogue of a file; without one, this machine as it is."""
    if path is None:
        from endpoint_operator.local.ray import this_machine

        return this_machine()
    return parse_profiles(text_of(path), str(path))


def parse_profiles(text: str, source: str) -> Catalogue:
    """Return the catalogue of a text that is from `source`; end the command if it cannot be used."""
    try:
        return parse_catalogue(yaml.safe_load(text))
    except ValidationError as error:
        problems = "; ".join(str(problem) for problem in describe(error, ProfileList))
        raise fail(f"{source}: {problems}") from error
    except (ValueError, yaml.YAMLError) as error:
        raise fail(f"{source}: {error}") from error


def text_of(path: Path) -> str:
    """Return what a file holds; end the command if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise fail(f"{path}: {error}") from error
