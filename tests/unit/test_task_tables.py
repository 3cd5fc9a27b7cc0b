"""Each task is in every table that is asked for it; one that is missing would only show in a replica."""

import pytest

from endpoint_operator.cli.display import _EXAMPLES
from serve_app.contract import Task
from serve_app.parameters import PARAMETERS
from serve_app.tasks import _TASKS


@pytest.mark.parametrize("table", [PARAMETERS, _EXAMPLES, _TASKS], ids=["parameters", "examples", "classes"])
def test_each_task_is_in_the_table(table):
    assert set(table) == set(Task)
