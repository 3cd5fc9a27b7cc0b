"""What no linter checks: places and sizes of files, sizes of functions, and what may use the tests."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LONGEST_FILE = 400
LONGEST_FUNCTION = 40
LARGEST_FOLDER = 14

CODE = ("serve_app", "operator", "models", "hack")
# The only targets whose work is to run tests or to check them.
TARGETS_OF_TESTS = {"test", "e2e", "lint"}


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


def packages(*folders):
    """Return each folder below `folders` that holds modules."""
    return sorted({path.parent for path in modules(*folders)})


def scripts(*folders):
    """Return the Python programs whose names have no suffix."""
    return [
        path
        for path in sources(*folders)
        if not path.suffix and "python" in path.read_text(encoding="utf-8").partition("\n")[0]
    ]


def shown(path):
    return str(path.relative_to(ROOT))


def imported(path):
    """Return the full name of each module that the file `path` imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def lines_by_target(makefile):
    """Return the lines of each target, its prerequisites included; those of no target are under ""."""
    target, lines = "", {"": []}
    for line in makefile.splitlines():
        if not line.startswith("\t"):
            found = re.match(r"([^\s:=#]+):(?!=)", line)
            target = found[1] if found else ""
        lines.setdefault(target, []).append(line)
    return lines


def test_the_operators_folder_does_not_shadow_the_standard_library():
    assert list((ROOT / "operator").glob("*.py")) == []


def test_the_folders_that_are_checked_are_there():
    folders = {*CODE, "tests"}
    assert {path.relative_to(ROOT).parts[0] for path in sources(*folders)} == folders


@pytest.mark.parametrize("path", modules(*CODE) + scripts(*CODE), ids=shown)
def test_nothing_but_the_benchmarks_imports_the_tests(path):
    assert [name for name in imported(path) if name.partition(".")[0] == "tests"] == []


def test_only_targets_that_run_tests_name_them():
    lines = lines_by_target((ROOT / "Makefile").read_text(encoding="utf-8"))
    assert lines.keys() > TARGETS_OF_TESTS
    naming = {target for target, text in lines.items() if re.search(r"\btests\b[./]", "\n".join(text))}
    assert {"e2e"} <= naming <= TARGETS_OF_TESTS


def test_make_test_runs_what_pytest_runs_by_itself():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lines = lines_by_target((ROOT / "Makefile").read_text(encoding="utf-8"))["test"]
    run = re.findall(r"\btests/[\w.]+", "\n".join(lines))
    assert sorted(run) == sorted(settings["tool"]["pytest"]["ini_options"]["testpaths"])


@pytest.mark.parametrize("path", packages("serve_app", "operator"), ids=shown)
def test_a_folder_can_be_taken_in_at_once(path):
    # An __init__.py is the folder itself.
    assert len([module for module in path.glob("*.py") if module.name != "__init__.py"]) <= LARGEST_FOLDER


@pytest.mark.parametrize("path", sources(*CODE, "tests"), ids=shown)
def test_a_file_can_be_read_in_one_go(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


@pytest.mark.parametrize("path", modules(*CODE), ids=shown)
def test_a_function_can_be_seen_at_once(path):
    functions = [
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FUNCTION} == {}


@pytest.mark.parametrize("path", modules("serve_app", "operator", "hack"), ids=shown)
def test_a_module_opens_with_what_it_is_for(path):
    text = path.read_text(encoding="utf-8")
    empty_package = path.name == "__init__.py" and not text
    assert empty_package or ast.get_docstring(ast.parse(text))


@pytest.mark.parametrize("path", modules("tests"), ids=shown)
def test_an_import_changes_no_variable_of_the_environment(path):
    # One process imports the modules of many tests, and the services that they start inherit its variables.
    targets = [
        target
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Subscript)
    ]
    assert not [ast.unparse(target) for target in targets if ast.unparse(target.value) == "os.environ"]
