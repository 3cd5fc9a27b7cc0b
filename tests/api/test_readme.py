"""The table of faults in README.md names tests that exist, and has a line for each fault of this tier."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLE = re.findall(
    r"^\| (\d+) \| [^|]+ \| (?:(\S+)/)?(\w+\.py)::(\w+) \|$",
    (Path(__file__).parent / "README.md").read_text(encoding="utf-8"),
    re.MULTILINE,
)
# Those that can be made without Ray and without nodes.
NUMBERS = {*range(1, 14), *range(15, 25), 49, 50, 51, *range(54, 76)}


def test_each_fault_of_this_tier_has_a_line():
    assert {int(number) for number, *_ in TABLE} >= NUMBERS


@pytest.mark.parametrize(("folder", "file", "test"), [line[1:] for line in TABLE])
def test_the_test_of_a_line_exists(folder, file, test):
    tree = ast.parse((ROOT / (folder or "tests/api") / file).read_text(encoding="utf-8"))
    assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
