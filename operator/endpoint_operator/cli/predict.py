"""`modelendpoint predict`: ask a served model about texts, and print what it answers."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from endpoint_operator.cli.answer_table import answer_table
from endpoint_operator.cli.asked import bodies, paired, texts_of
from endpoint_operator.cli.model_client import DEFAULT_URL, ModelClient, Parameters, Url, task_parameters

_NOTHING = "give a TEXT, - for the lines of standard input, or --file"


def predict(
    name: Annotated[str, typer.Argument(help="Name of the endpoint.")],
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="TEXT…", help="Texts to ask about; - for the lines of standard input."),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="File with a text a line, or JSON lines (*.jsonl) of texts or objects."),
    ] = None,
    pair: Annotated[
        bool, typer.Option("--pair", help="Take the texts two by two, in the order of the model's inputs.")
    ] = False,
    query: Annotated[str | None, typer.Option(help="The input 'query'; each TEXT is the other.")] = None,
    question: Annotated[str | None, typer.Option(help="The input 'question'; the same.")] = None,
    context: Annotated[str | None, typer.Option(help="The input 'context'; the same.")] = None,
    parameters: Parameters = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON lines, as into a file or another program.")
    ] = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Ask a served model; prints a table on a terminal, and else one JSON line for each text."""
    options = {"query": query, "question": question, "context": context}
    named = {key: value for key, value in options.items() if value is not None}
    client = ModelClient(url, name)
    stated = task_parameters(parameters or [])
    asked = paired(texts_of(texts or [], file), named, client, in_twos=pair)
    if not asked:
        raise typer.BadParameter(_NOTHING, param_hint="TEXT…")
    console = Console()
    for questions, body in bodies(asked, stated):
        predictions = client.predict(body)["predictions"]
        if console.is_terminal and not as_json:
            console.print(answer_table(questions, predictions))
            continue
        for prediction in predictions:
            typer.echo(json.dumps(prediction, ensure_ascii=False))
