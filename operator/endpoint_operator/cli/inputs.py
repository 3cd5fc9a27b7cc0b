"""What the commands share: options, reading files, asking a cluster, and saying what is wrong."""

import asyncio
from collections.abc import Coroutine
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

from endpoint_operator.api.profiles import ClusterProfiles, InvalidProfilesError, Profiles, read_profiles
from endpoint_operator.cli.display import Display
from endpoint_operator.local.manifests import Workspace

# Answers go to standard output, and messages for people to standard error.
messages = Display(Console(stderr=True))


class Output(StrEnum):
    """How answers are printed."""

    TABLE = "table"
    JSON = "json"


Files = Annotated[
    list[Path], typer.Argument(metavar="FILES…", help="Manifests, or folders of manifests (*.yaml, *.json).")
]
Context = Annotated[str | None, typer.Option(help="Context of the kubeconfig; without it, the current one.")]
Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", help="Namespace; without it, the context's.")
]
RayServiceName = Annotated[
    str | None, typer.Option(help="RayService; without it, the only one or the default of the namespace.")
]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="For people, or for programs.")]

Result = TypeVar("Result")


def fail(sentence: str) -> typer.Exit:
    """Say what is wrong, and return the exception that ends the command."""
    messages.complain(sentence)
    return typer.Exit(1)


def read_manifests(files: list[Path]) -> Workspace:
    """Read the endpoints of `files`; end the command if anything is wrong with them."""
    workspace = Workspace(files)
    problems = workspace.reread()
    for problem in problems:
        messages.complain(str(problem))
    if problems:
        raise typer.Exit(1)
    return workspace


def profiles_of(path: Path | None) -> Profiles:
    """Read the profiles of a file; without a file, return this machine."""
    if path is None:
        from endpoint_operator.local.ray import detect_machine

        return detect_machine()
    return profiles_in(read_text(path), str(path))


def profiles_in(text: str, source: str) -> ClusterProfiles:
    """Parse the text of a profiles file that is from `source`; end the command if it cannot be used."""
    try:
        return read_profiles(text, source)
    except InvalidProfilesError as error:
        raise fail(str(error)) from error


def read_text(path: Path) -> str:
    """Read a file; end the command if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise fail(f"{path}: {error}") from error


def cluster_queries() -> ModuleType:
    """Import the module that needs the Kubernetes client, which is an optional dependency."""
    try:
        from endpoint_operator.cli import cluster
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("kubernetes", "aiohttp"):
            raise
        raise fail(
            "this needs the Kubernetes client; install it with: pip install 'model-endpoints[operator]'"
        ) from error
    return cluster


def ask_cluster(query: Coroutine[Any, Any, Result]) -> Result:
    """Run a query of `cluster_queries()`; end the command if the cluster does not answer it."""
    try:
        return asyncio.run(query)
    except cluster_queries().KubeError as error:
        raise fail(str(error)) from error
