"""What `predict` is asked to send: texts of arguments, standard input and files, and pairs by name."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from endpoint_operator.cli.inputs import fail, read_text
from endpoint_operator.cli.model_client import ModelClient
from serve_app.contract import MAX_BODY_BYTES, MAX_TEXTS_PER_REQUEST

JSON_LINES: Final = (".jsonl", ".ndjson")
STANDARD_INPUT: Final = "-"

# One text, or the inputs of one question by their names.
Asked = str | Mapping[str, str]


def texts_of(arguments: Sequence[str], file: Path | None) -> list[Asked]:
    """Return what arguments, standard input for `-`, and a file ask; end the command if it is unreadable.

    Lines without a text are left out.
    """
    asked: list[Asked] = []
    for argument in arguments:
        asked += _lines(sys.stdin.read()) if argument == STANDARD_INPUT else [argument]
    if file is None:
        return asked
    text = sys.stdin.read() if str(file) == STANDARD_INPUT else read_text(file)
    if file.suffix not in JSON_LINES:
        return asked + _lines(text)
    lines = enumerate(text.splitlines(), 1)
    return asked + [_json_line(line, f"{file}:{number}") for number, line in lines if line.strip()]


def _lines(text: str) -> list[Asked]:
    return [line for line in text.splitlines() if line.strip()]


def _json_line(line: str, place: str) -> Asked:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise fail(f"{place}: is no JSON: {error}") from error
    if isinstance(value, str):
        return value
    named = isinstance(value, dict) and value and all(isinstance(text, str) for text in value.values())
    if not named:
        raise fail(f"{place}: got {line[:80]!r}; must be a text or an object of texts by their inputs' names")
    return dict(value)


def paired(
    texts: Sequence[Asked], named: Mapping[str, str], client: ModelClient, *, in_twos: bool
) -> list[Asked]:
    """Return what is asked of a model with two inputs; ends the command if it is not two texts each.

    `named` has the inputs that options give: both, or one, to which each of `texts` is the other. `in_twos`
    takes `texts` two by two.
    """
    if in_twos:
        return _in_twos(texts, _two_inputs(client))
    if not named:
        return list(texts)
    if len(named) == 2 and not texts:
        return [dict(named)]
    names = _two_inputs(client)
    for name in named:
        if name not in names:
            raise fail(f"--{name}: {client.name} has no input of that name; it has {' and '.join(names)}")
    if len(named) == 2 or not texts:
        raise fail(f"give {' and '.join(f'--{name}' for name in names)}, or one of them and TEXTs")
    [other] = [name for name in names if name not in named]
    return [{**named, other: text} if isinstance(text, str) else text for text in texts]


def _two_inputs(client: ModelClient) -> list[str]:
    names = client.inputs()
    if len(names) != 2:
        because = f"it takes {', '.join(names)}" if names else "at rest, it does not say what it takes"
        raise fail(f"{client.name} is not known to take pairs of texts: {because}")
    return names


def _in_twos(texts: Sequence[Asked], names: Sequence[str]) -> list[Asked]:
    plain = [text for text in texts if isinstance(text, str)]
    if len(plain) != len(texts) or len(plain) % 2:
        raise fail(f"--pair: got {len(texts)} texts; must be an even number of them")
    return [dict(zip(names, two, strict=True)) for two in zip(plain[::2], plain[1::2], strict=True)]


def bodies(
    asked: Sequence[Asked], parameters: Mapping[str, Any]
) -> Iterator[tuple[Sequence[Asked], dict[str, Any]]]:
    """Yield requests with what they ask, within the service's limits of texts and bytes."""
    batch: list[Asked] = []
    size = 0
    for each in asked:
        length = len(json.dumps(each))
        if batch and (len(batch) == MAX_TEXTS_PER_REQUEST or size + length > MAX_BODY_BYTES // 2):
            yield batch, {"texts": batch, "parameters": parameters}
            batch, size = [], 0
        batch.append(each)
        size += length
    if batch:
        yield batch, {"texts": batch, "parameters": parameters}
