"""What no linter checks: where files lie and how long they and their functions are."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LONGEST_FILE = 400
LONGEST_FUNCTION = 40


def sources(*folders):
    """Return the Python files and scripts below `folders`, what is built there left out."""
    return [
        path
        for folder in folders
        for path in sorted((ROOT / folder).rglob("*"))
        if path.is_file()
        and path.suffix in {".py", ".sh", ""}
        and not {"__pycache__", "build"} & set(path.relative_to(ROOT).parts)
    ]


def modules(*folders):
    return [path for path in sources(*folders) if path.suffix == ".py"]


def shown(path):
    return str(path.relative_to(ROOT))


def test_the_operators_folder_does_not_shadow_the_standard_library():
    assert list((ROOT / "operator").glob("*.py")) == []


def test_the_folders_that_are_checked_are_there():
    assert {
        path.relative_to(ROOT).parts[0] for path in sources("serve_app", "operator", "models", "tests")
    } == {
        "serve_app",
        "operator",
        "models",
        "tests",
    }


@pytest.mark.parametrize("path", sources("serve_app", "operator", "models", "tests", "hack"), ids=shown)
def test_a_file_can_be_read_in_one_go(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


@pytest.mark.parametrize("path", modules("serve_app", "operator", "models"), ids=shown)
def test_a_function_can_be_seen_at_once(path):
    functions = [
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FUNCTION} == {}


@pytest.mark.parametrize("path", modules("serve_app", "operator"), ids=shown)
def test_a_module_opens_with_what_it_is_for(path):
    text = path.read_text(encoding="utf-8")
    empty_package = path.name == "__init__.py" and not text
    assert empty_package or ast.get_docstring(ast.parse(text))
