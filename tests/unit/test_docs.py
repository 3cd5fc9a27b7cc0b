"""The documentation keeps to what is there: links, manifests, command lines, and values of the chart."""

import re
import shlex
import subprocess
from pathlib import Path

import jsonschema
import pytest
import typer
import yaml
from typer.testing import CliRunner

from endpoint_operator.api.types import KIND, parse_endpoint
from endpoint_operator.cli.main import app
from serve_app.contract import Task
from serve_app.http.entrances import ENTRANCES
from serve_app.parameters import PARAMETERS
from serve_app.protocols import VERBS
from tests.harness.builders import spec_fields

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "model-endpoints"
LISTED = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
).stdout.split()
PAGES = {name: (ROOT / name).read_text(encoding="utf-8") for name in LISTED if (ROOT / name).exists()}

BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")
# What a reader puts something else for: FILES…, NAME; and `modelendpoint run` in the middle of a sentence.
SPAN = re.compile(r"`(?:\.venv/bin/)?(modelendpoint [^`]*)`")


def blocks(*languages):
    """Return (page, text) of each code block in one of `languages`."""
    return [
        (page, text)
        for page, content in PAGES.items()
        for _, language, text in BLOCK.findall(content)
        if language in languages
    ]


def prose(content):
    return BLOCK.sub("", content)


def anchors(content):
    """Return the names that GitHub gives the headings."""
    headings = re.findall(r"^#+ (.+)$", prose(content), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(name):
    """Return (page, line) of each command line that begins with `name`, or with variables before it."""
    found = []
    for page, text in blocks("sh", ""):
        for line in text.replace("\\\n", " ").splitlines():
            # A description may follow after two spaces.
            words = re.sub(r"^(?:\w+=\S+ )*(?:\.venv/bin/)?", "", line.strip()).partition("  ")[0]
            if words.startswith(f"{name} "):
                found.append((page, words))
    return found


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page):
    lost = []
    for path, anchor in LINK.findall(prose(PAGES[page])):
        if re.match(r"\w+:", path):
            continue
        target = (ROOT / page).parent / path if path else ROOT / page
        if not target.exists():
            lost.append(path)
        elif anchor and anchor not in anchors(target.read_text(encoding="utf-8")):
            lost.append(f"{path}#{anchor}")
    assert lost == []


def test_manifests_are_valid():
    manifests = [
        (page, document)
        for page, text in blocks("yaml")
        for document in yaml.safe_load_all(text)
        if isinstance(document, dict) and document.get("kind") == KIND
    ]
    assert len(manifests) > 3
    for page, manifest in manifests:
        assert parse_endpoint(manifest).spec, page


def test_values_are_those_of_the_chart():
    schema = yaml.safe_load((CHART / "values.schema.json").read_text(encoding="utf-8"))
    found = [(page, yaml.safe_load(text)) for page, text in blocks("yaml") if "values.yaml" in text[:30]]
    assert found
    for page, values in found:
        assert list(jsonschema.Draft7Validator(schema).iter_errors(values)) == [], page


def test_values_on_the_command_line_are_those_of_the_chart():
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    found = [(page, line) for page, line in commands("helm") if "charts/model-endpoints" in line]
    assert found
    for page, line in found:
        words = shlex.split(line)
        for option, assignments in zip(words, words[1:], strict=False):
            if option in ("--set", "--set-string"):
                for path in re.findall(r"(?:^|,)([\w.]+)=", assignments):
                    assert knows(values, path.split(".")), f"{page}: {path}"


def knows(values, path):
    """Return whether `values` has the path; an empty object takes any key."""
    for key in path:
        if values == {}:
            return True
        if not isinstance(values, dict) or key not in values:
            return False
        values = values[key]
    return True


def test_each_field_of_the_spec_is_in_the_table_of_fields():
    rows = re.findall(r"^\| (`[^|]+) \|", PAGES["docs/modelendpoint.md"], re.MULTILINE)
    documented = set()
    for row in rows:
        first, *others = re.findall(r"`([\w.]+)`", row)
        section = first.rpartition(".")[0]
        documented |= {first, *(f"{section}.{name}" for name in others)}
    assert documented == spec_fields()


def test_each_task_with_its_parameters_and_each_route_is_in_the_http_page():
    page = PAGES["docs/http.md"]
    rows = re.findall(r"^\|([^|]*)\|([^|]*)\|", page, re.MULTILINE)
    tasks = {task.strip() for first, _ in rows for task in first.split(",")}
    named = set(re.findall(r"`(\w+)`", " ".join(second for _, second in rows)))
    assert tasks >= set(Task)
    assert named >= {name for model in PARAMETERS.values() for name in model.model_fields}
    paths = [f"/v2/models/<name>/{verb}".rstrip("/") for verb in VERBS]
    assert [path for path in (*paths, *ENTRANCES) if f"{path}`" not in page] == []


@pytest.mark.parametrize(("page", "line"), commands("modelendpoint"))
def test_command_lines_are_those_of_the_command(page, line):
    """The command's own parser reads them; nothing is run."""
    name, *words = shlex.split(line)[1:]
    subcommands = typer.main.get_command(app).commands
    if not name.startswith("-"):
        subcommands[name].make_context(name, words)


@pytest.mark.parametrize(
    ("page", "line"), [(page, line) for page, text in PAGES.items() for line in SPAN.findall(prose(text))]
)
def test_commands_in_sentences_are_those_of_the_command(page, line):
    """They may lack what they are run on, which is not looked at beside --help."""
    assert CliRunner().invoke(app, [*shlex.split(line)[1:], "--help"]).exit_code == 0
