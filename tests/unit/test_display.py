"""What a person reads: whole URLs, commands that work when pasted, only what changed."""

import io
import json
import shlex

import pytest
from rich.console import Console

from endpoint_operator.cli.display import Display, curl_command
from endpoint_operator.local.state import EndpointState, State
from serve_app.contract import Task
from tests.harness.builders import endpoint

BASE_URL = "http://localhost:8000"


@pytest.fixture
def screen():
    """A display of 40 columns and what was printed on it."""
    printed = io.StringIO()
    return Display(Console(file=printed, width=40)), printed


def test_the_table_shows_whole_names_and_urls_however_narrow_the_terminal(screen):
    display, printed = screen
    endpoints = [endpoint("b-rather-long-name"), endpoint("a")]
    states = {item.name: EndpointState(item.name, State.READY) for item in endpoints}
    display.show_table(endpoints, states, BASE_URL)
    title, first, second = printed.getvalue().strip().splitlines()
    assert title.split() == ["NAME", "TASK", "STATE", "URL"]
    assert first.split() == ["a", "text-classification", "Ready", f"{BASE_URL}/v2/models/a"]
    assert second.split()[-1] == f"{BASE_URL}/v2/models/b-rather-long-name"


def test_only_changes_are_printed_and_a_removal_is_one(screen):
    display, printed = screen
    loading, failed = EndpointState("a", State.LOADING), EndpointState("a", State.FAILED, cause="[no] folder")
    for states in ([loading], [loading], [failed], [failed], []):
        display.show_changes(states)
    assert printed.getvalue().splitlines() == ["  a: Loading", "  a: Failed: [no] folder", "  a: removed"]


def test_a_phase_is_told_until_there_is_a_cause(screen):
    display, printed = screen
    for phase, cause in (
        ("", ""),
        ("one", ""),
        ("one", ""),
        ("two", ""),
        ("two", "no folder"),
        ("one", "no folder"),
    ):
        display.show_changes([EndpointState("a", State.LOADING, phase=phase, cause=cause)])
    told = ["  a: Loading", "  a: Loading: one", "  a: Loading: two", "  a: Loading: no folder"]
    assert printed.getvalue().splitlines() == told


def test_what_is_waited_for_is_told_every_ten_seconds(screen):
    display, printed = screen
    states = [
        EndpointState("b", State.LOADING),
        EndpointState("a", State.UPDATING),
        EndpointState("c", State.READY),
    ]
    for seconds in (0, 9, 10.2, 11, 20.3, 20.5, 1, 12):
        display.show_waiting(states, seconds)
    display.show_waiting(states[2:], 60)
    assert printed.getvalue().splitlines() == [
        f"  after {seconds} s, not ready yet: a, b" for seconds in (10, 20, 12)
    ]


@pytest.mark.parametrize("task", Task)
def test_the_example_of_each_task_is_a_shell_command_with_a_json_body(task):
    words = shlex.split(curl_command(endpoint(model={"task": task.value}), BASE_URL))
    assert words[:3] == ["curl", "-s", "localhost:8000/predict"]
    body = json.loads(words[-1])
    assert body["model"] == "sentiment"
    assert body.get("text") or body["question"]
