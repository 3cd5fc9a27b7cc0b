"""What the commands print: sentences, tables, and the progress of `modelendpoint run`."""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from rich.console import Console
from rich.markup import escape

from endpoint_operator.api.types import ModelEndpoint
from endpoint_operator.local.state import EndpointState, State
from serve_app.contract import Task, route_prefix

_COLOURS: Final[Mapping[State, str]] = {
    State.READY: "green",
    State.LOADING: "yellow",
    State.UPDATING: "yellow",
    State.SUSPENDED: "dim",
    State.DEGRADED: "red",
    State.FAILED: "red",
    State.REJECTED: "red",
}

_EXAMPLES: Final[Mapping[Task, Mapping[str, Any]]] = {
    Task.TEXT_CLASSIFICATION: {"text": "I love this product"},
    Task.TOKEN_CLASSIFICATION: {"text": "Ada Lovelace lived in London."},
    Task.ZERO_SHOT_CLASSIFICATION: {
        "text": "The goalkeeper saved the penalty.",
        "parameters": {"candidate_labels": ["sports", "politics"]},
    },
    Task.FEATURE_EXTRACTION: {"text": "A sentence to embed"},
    Task.TEXT_RANKING: {"query": "Who wrote it?", "text": "Ada Lovelace wrote the first program."},
    Task.FILL_MASK: {"text": "Paris is the [MASK] of France."},
    Task.TEXT_GENERATION: {"text": "Once upon a time"},
    Task.TEXT2TEXT_GENERATION: {"text": "summarize: Ray serves many models on one cluster."},
    Task.SUMMARIZATION: {"text": "Ray serves many models on one cluster, and each of them scales by itself."},
    Task.TRANSLATION: {"text": "Where is the station?"},
    Task.QUESTION_ANSWERING: {
        "question": "Who wrote it?",
        "context": "Ada Lovelace wrote the first program for a machine.",
    },
}


# How often it is said what is waited for.
WAITING_SECONDS: Final = 10.0


class Display:
    """Prints to a console; remembers the last states, to print only what has changed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: dict[str, EndpointState] = {}
        self._waited = 0.0

    def say(self, sentence: str) -> None:
        self._console.print(sentence, highlight=False, markup=False, soft_wrap=True)

    def complain(self, sentence: str) -> None:
        """Print a sentence about an error."""
        self._console.print(sentence, style="red", highlight=False, markup=False, soft_wrap=True)

    def show_changes(self, states: Iterable[EndpointState]) -> None:
        """Print a line for each endpoint whose state, cause or phase has changed."""
        current = {state.name: state for state in states}
        for name, state in current.items():
            last = self._shown.get(name)
            if last is None or _told(last) != _told(state):
                self._console.print(_line(state), highlight=False, soft_wrap=True)
        for name in self._shown.keys() - current.keys():
            self.say(f"  {name}: removed")
        self._shown = current

    def show_waiting(self, states: Iterable[EndpointState], seconds: float) -> None:
        """Print every WAITING_SECONDS which endpoints are waited for, after `seconds` since the config."""
        if seconds < self._waited:
            # Another config was applied.
            self._waited = 0.0
        if seconds - self._waited < WAITING_SECONDS:
            return
        self._waited = seconds
        names = [state.name for state in states if not state.settled]
        if names:
            self.say(f"  after {seconds:.0f} s, not ready yet: {', '.join(sorted(names))}")

    def show_table(
        self, endpoints: Sequence[ModelEndpoint], states: Mapping[str, EndpointState], base_url: str
    ) -> None:
        rows = [
            (
                endpoint.name,
                str(endpoint.spec.model.task),
                str(states[endpoint.name].state),
                base_url + route_prefix(endpoint.name),
            )
            for endpoint in sorted(endpoints, key=lambda endpoint: endpoint.name)
        ]
        self.say("")
        self.show_rows(("NAME", "TASK", "STATE", "URL"), rows)

    def show_rows(self, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Print rows below a header, in columns."""
        lines = [header, *rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        # A table of rich would cut URLs on a narrow terminal.
        for line in lines:
            cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
            self.say("   ".join(cells).rstrip())

    def show_example(self, endpoint: ModelEndpoint, base_url: str) -> None:
        """Print a command that sends `endpoint` a request."""
        self.say(f"\nTry it:\n  {curl_command(endpoint, base_url)}\n")


def example(task: Task) -> Mapping[str, Any]:
    """Return the body of a request that a model of `task` can answer, without the model's name."""
    return _EXAMPLES[task]


def curl_command(endpoint: ModelEndpoint, base_url: str) -> str:
    """Return a shell command that sends `endpoint` a request through the gateway."""
    body = json.dumps({"model": endpoint.name, **_EXAMPLES[endpoint.spec.model.task]})
    url = base_url.removeprefix("http://")
    return f"curl -s {url}/predict -H 'content-type: application/json' -d {shlex.quote(body)}"


def _told(state: EndpointState) -> tuple[str, ...]:
    return (state.state, state.cause or state.phase)


def _line(state: EndpointState) -> str:
    # What has failed says more than that it is tried again.
    said = state.cause or state.phase
    cause = f": {escape(said)}" if said else ""
    return f"  [{_COLOURS[state.state]}]{state.name}: {state.state}[/]{cause}"
