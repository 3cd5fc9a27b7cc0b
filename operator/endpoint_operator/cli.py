"""The command `modelendpoint`: reads arguments, prints results, decides exit codes."""

import json
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import typer
import yaml
from pydantic import ValidationError
from pydantic_core import from_json
from rich.console import Console

from endpoint_operator.compile import compile_serve_config
from endpoint_operator.display import Display
from endpoint_operator.manifests import Workspace
from endpoint_operator.problems import describe
from endpoint_operator.profiles import Catalogue, ProfileList, parse_catalogue
from serve_app.contract import route_prefix

app = typer.Typer(
    help="Serve machine-learning models from ModelEndpoint manifests.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

# Generation on a processor takes its time.
PREDICT_TIMEOUT_SECONDS: Final = 300.0

# Answers go to standard output; what is only for people, to standard error.
_messages = Display(Console(stderr=True))

Files = Annotated[
    list[Path], typer.Argument(metavar="FILES…", help="Manifests, or folders of manifests (*.yaml, *.json).")
]


def main() -> None:
    """Run the command line."""
    app()


def _fail(sentence: str) -> typer.Exit:
    _messages.complain(sentence)
    return typer.Exit(1)


@app.command()
def run(
    files: Files,
    port: Annotated[int, typer.Option(min=1, max=65535, help="HTTP port.")] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    models: Annotated[
        Path | None, typer.Option(help="Folder that stands in for /models in file:///models/… URIs.")
    ] = None,
    ray_dashboard: Annotated[
        str | None,
        typer.Option(help="Join the Ray whose dashboard has this URL, instead of starting one."),
    ] = None,
) -> None:
    """Serve the manifests on this machine, and follow the files as they change."""
    from endpoint_operator.local import CannotServeError, Options, serve_manifests

    try:
        serve_manifests(files, Options(host, port, models, ray_dashboard), Display(Console()))
    except CannotServeError as error:
        raise _fail(str(error)) from error


@app.command()
def validate(
    files: Files,
    profiles: Annotated[
        Path | None, typer.Option(help="Catalogue of resource profiles to hold against.")
    ] = None,
) -> None:
    """Check manifests; each problem is printed with its file and line."""
    workspace = _read(files)
    if profiles is not None:
        _compile(workspace, _catalogue(profiles))
    count = len(workspace.endpoints)
    _messages.say(f"{count} endpoint{'s' if count != 1 else ''} valid")


@app.command()
def render(
    files: Files,
    profiles: Annotated[
        Path | None,
        typer.Option(help="Catalogue of resource profiles of a cluster; without it, for this machine."),
    ] = None,
    indent: Annotated[int | None, typer.Option(min=0, max=8, help="Spaces; without it, on one line.")] = None,
) -> None:
    """Print the Ray Serve configuration that the manifests compile to."""
    document = _compile(_read(files), _catalogue(profiles))
    if indent is not None:
        document = json.dumps(json.loads(document), sort_keys=True, indent=indent)
    typer.echo(document)


@app.command()
def predict(
    name: Annotated[str, typer.Argument(help="Name of the endpoint.")],
    texts: Annotated[list[str], typer.Argument(metavar="TEXT…", help="Texts to ask about.")],
    url: Annotated[str, typer.Option(help="Address of the service.")] = "http://localhost:8000",
    parameters: Annotated[str, typer.Option(help="The task's parameters as a JSON object.")] = "{}",
) -> None:
    """Ask a served model; prints one JSON line for each text."""
    address = url.rstrip("/") + route_prefix(name) + "/predict"
    body = {"texts": texts, "parameters": _json_object(parameters)}
    try:
        response = httpx.post(address, json=body, timeout=PREDICT_TIMEOUT_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _fail(f"{url} does not answer: {error}") from error
    if response.is_error:
        raise _fail(f"{response.status_code}: {_member(response, 'error') or response.text[:400]}")
    predictions = _member(response, "predictions")
    if not isinstance(predictions, list):
        raise _fail(f"{url} is no model service: it answered {response.text[:80]!r}")
    for prediction in predictions:
        typer.echo(json.dumps(prediction, ensure_ascii=False))


def _json_object(text: str) -> dict[str, Any]:
    try:
        decoded = from_json(text, allow_inf_nan=False)
    except ValueError:
        decoded = None
    if not isinstance(decoded, dict):
        raise _fail(f"--parameters: got {text!r}; must be a JSON object")
    return decoded


def _member(response: httpx.Response, name: str) -> Any:
    """Return a member of the JSON object that was answered; None if it is no such object."""
    try:
        document = response.json()
    except ValueError:
        return None
    return document.get(name) if isinstance(document, dict) else None


def _read(files: list[Path]) -> Workspace:
    workspace = Workspace(files)
    problems = workspace.reread()
    for problem in problems:
        _messages.complain(str(problem))
    if problems:
        raise typer.Exit(1)
    return workspace


def _compile(workspace: Workspace, catalogue: Catalogue) -> str:
    compilation = compile_serve_config(workspace.endpoints, catalogue)
    for rejection in compilation.rejections:
        _messages.complain(f"{rejection.key[1]}: {rejection.reason}")
    if compilation.rejections:
        raise typer.Exit(1)
    return compilation.document


def _catalogue(path: Path | None) -> Catalogue:
    if path is None:
        from endpoint_operator.ray_here import this_machine

        return this_machine()
    try:
        document: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        return parse_catalogue(document)
    except ValidationError as error:
        problems = "; ".join(str(problem) for problem in describe(error, ProfileList))
        raise _fail(f"{path}: {problems}") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise _fail(f"{path}: {error}") from error


if __name__ == "__main__":
    main()
