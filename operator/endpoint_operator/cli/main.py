"""The command `modelendpoint`: parses arguments, prints results, and sets the exit code."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from endpoint_operator.api.json_text import to_json
from endpoint_operator.api.profiles import Profiles
from endpoint_operator.cli.bench import bench
from endpoint_operator.cli.display import Display
from endpoint_operator.cli.inputs import Files, fail, messages, profiles_of, read_manifests
from endpoint_operator.cli.plan import plan
from endpoint_operator.cli.plan_chart import plan_chart
from endpoint_operator.cli.predict import predict
from endpoint_operator.cli.status import status
from endpoint_operator.cli.usage import usage
from endpoint_operator.local.manifests import Workspace
from endpoint_operator.serveconfig.compiler import compile_serve_config
from serve_app.contract import GRPC_PORT

app = typer.Typer(
    help="Serve machine-learning models from ModelEndpoint manifests.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line."""
    app()


@app.command()
def run(
    files: Files,
    port: Annotated[int, typer.Option(min=1, max=65535, help="HTTP port.")] = 8000,
    grpc_port: Annotated[int, typer.Option(min=1, max=65535, help="gRPC port.")] = GRPC_PORT,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    models: Annotated[
        Path | None, typer.Option(help="Folder that stands in for /models in file:///models/… URIs.")
    ] = None,
    ray_dashboard: Annotated[
        str | None,
        typer.Option(help="Join the Ray whose dashboard has this URL, instead of starting one."),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(help="File with a line 'name: key' for each key; clients need one then."),
    ] = None,
    optional_keys: Annotated[
        bool, typer.Option("--optional-keys", help="Let clients without a key in, too.")
    ] = False,
    hide_models: Annotated[
        bool, typer.Option("--hide-models", help="Answer 404 for models that a key may not ask, not 403.")
    ] = False,
    access_log: Annotated[
        bool, typer.Option("--access-log", help="Print a JSON line for each request.")
    ] = False,
) -> None:
    """Serve the manifests on this machine, and follow the files as they change."""
    from endpoint_operator.local.access import KeysOptions
    from endpoint_operator.local.service import CannotServeError, Options, serve_manifests

    try:
        access = None if keys is None else KeysOptions(keys.absolute(), optional_keys, hide_models)
        options = Options(host, port, grpc_port, models, ray_dashboard, access, access_log)
        serve_manifests(files, options, Display(Console()))
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
app.command()(usage)
app.command()(predict)
app.command()(bench)


def _compile(workspace: Workspace, profiles: Profiles) -> str:
    compilation = compile_serve_config(workspace.endpoints, profiles)
    for rejection in compilation.rejections:
        messages.complain(f"{rejection.key[1]}: {rejection.reason}")
    if compilation.rejections:
        raise typer.Exit(1)
    return compilation.document


if __name__ == "__main__":
    main()
