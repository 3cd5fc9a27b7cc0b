"""The command `modelendpoint`: parses arguments, prints results, and sets the exit code."""

import json
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import typer
from pydantic_core import from_json
from rich.console import Console

from endpoint_operator.api.json_text import to_json
from endpoint_operator.api.profiles import Profiles
from endpoint_operator.cli.display import Display
from endpoint_operator.cli.inputs import Files, fail, messages, profiles_of, read_manifests
from endpoint_operator.cli.plan import plan
from endpoint_operator.cli.plan_chart import plan_chart
from endpoint_operator.cli.status import status
from endpoint_operator.local.manifests import Workspace
from endpoint_operator.serveconfig.compiler import compile_serve_config
from serve_app.contract import route_prefix

app = typer.Typer(
    help="Serve machine-learning models from ModelEndpoint manifests.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

# Text generation on a CPU takes minutes.
PREDICT_TIMEOUT_SECONDS: Final = 300.0


def main() -> None:
    """Run the command line."""
    app()


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
    from endpoint_operator.local.service import CannotServeError, Options, serve_manifests

    try:
        serve_manifests(files, Options(host, port, models, ray_dashboard), Display(Console()))
    except CannotServeError as error:
        raise fail(str(error)) from error


@app.command()
def validate(
    files: Files,
    profiles: Annotated[Path | None, typer.Option(help="File of resource profiles to check against.")] = None,
) -> None:
    """Check manifests; each problem is printed with its file and line."""
    workspace = read_manifests(files)
    if profiles is not None:
        _compile(workspace, profiles_of(profiles))
    count = len(workspace.endpoints)
    messages.say(f"{count} endpoint{'s' if count != 1 else ''} valid")


@app.command()
def render(
    files: Files,
    profiles: Annotated[
        Path | None,
        typer.Option(help="File of a cluster's resource profiles; without it, for this machine."),
    ] = None,
    indent: Annotated[int | None, typer.Option(min=0, max=8, help="Spaces; without it, on one line.")] = None,
) -> None:
    """Print the Ray Serve configuration that the manifests compile to."""
    document = _compile(read_manifests(files), profiles_of(profiles))
    if indent is not None:
        document = to_json(json.loads(document), indent)
    typer.echo(document)


app.command()(plan)
app.command()(plan_chart)
app.command()(status)


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
        response = httpx.post(
            address, json=body, timeout=PREDICT_TIMEOUT_SECONDS, trust_env=not _is_this_machine(address)
        )
    except (httpx.HTTPError, httpx.InvalidURL, ImportError, ValueError) as error:
        # The last two are about a proxy that the environment names and httpx cannot use.
        raise fail(f"{url} does not answer: {error}") from error
    if response.is_error:
        raise fail(f"{response.status_code}: {_member(response, 'error') or response.text[:400]}")
    predictions = _member(response, "predictions")
    if not isinstance(predictions, list):
        raise fail(f"{url} is no model service: it answered {response.text[:80]!r}")
    for prediction in predictions:
        typer.echo(json.dumps(prediction, ensure_ascii=False))


def _is_this_machine(address: str) -> bool:
    """Return whether a proxy that the environment names must not be asked for `address`."""
    host = httpx.URL(address).host
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost" or host.endswith(".localhost")


def _json_object(text: str) -> dict[str, Any]:
    try:
        decoded = from_json(text, allow_inf_nan=False)
    except ValueError:
        decoded = None
    if not isinstance(decoded, dict):
        raise fail(f"--parameters: got {text!r}; must be a JSON object")
    return decoded


def _member(response: httpx.Response, name: str) -> Any:
    """Return a member of the answer's JSON object; None if the answer is not an object or lacks it."""
    try:
        document = response.json()
    except ValueError:
        return None
    return document.get(name) if isinstance(document, dict) else None


def _compile(workspace: Workspace, profiles: Profiles) -> str:
    compilation = compile_serve_config(workspace.endpoints, profiles)
    for rejection in compilation.rejections:
        messages.complain(f"{rejection.key[1]}: {rejection.reason}")
    if compilation.rejections:
        raise typer.Exit(1)
    return compilation.document


if __name__ == "__main__":
    main()
