import json

import pytest
from typer.testing import CliRunner

from endpoint_operator.cli.main import app
from endpoint_operator.local.manifests import read_manifest
from endpoint_operator.local.ray import detect_machine
from endpoint_operator.serveconfig.compiler import compile_serve_config
from tests.harness.builders import CLUSTER, manifest_text

PROFILES = """\
profiles:
  - {name: cpu, cpus: 8, memory: 16Gi}
  - {name: gpu-t4, accelerators: 4, cpus: 16, memory: 64Gi}
"""

ON_A_GPU = manifest_text("on-gpu") + "  resources: {profile: gpu-t4, count: 2}\n"


@pytest.fixture
def folder(tmp_path):
    """A folder with one endpoint, and a file of profiles beside it."""
    (tmp_path / "profiles.yaml").write_text(PROFILES)
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "a.yaml").write_text(manifest_text("a"))
    return tmp_path / "manifests"


def modelendpoint(*arguments, stdin=None):
    """Run the command; return its exit code, what it printed, and what it said to people."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def endpoints_of(folder):
    files = [read_manifest(path) for path in sorted(folder.iterdir())]
    return [located.endpoint for file in files for located in file.endpoints]


@pytest.mark.parametrize(("count", "sentence"), [(0, "0 endpoints"), (1, "1 endpoint"), (2, "2 endpoints")])
def test_validate_counts_what_is_valid(tmp_path, count, sentence):
    for number in range(count):
        (tmp_path / f"{number}.yaml").write_text(manifest_text(f"e{number}"))
    assert modelendpoint("validate", tmp_path) == (0, "", f"{sentence} valid\n")


@pytest.mark.parametrize("command", ["validate", "render"])
def test_a_broken_file_is_reported_with_its_line(folder, command):
    broken = folder / "b.yaml"
    broken.write_text(manifest_text("b", task="nope"))
    code, output, complaint = modelendpoint(command, folder)
    assert (code, output) == (1, "")
    assert complaint.startswith(f"{broken}:7: spec.model.task: got 'nope'; input should be")


def test_every_problem_is_reported(folder):
    (folder / "b.yaml").write_text("broken: [")
    (folder / "c.yaml").write_text(manifest_text("c", task="nope") + "  suspend: 1\n")
    _, _, complaint = modelendpoint("validate", folder)
    assert len(complaint.splitlines()) == 3


def test_a_file_that_is_not_there_is_reported(tmp_path):
    path = tmp_path / "nope.yaml"
    assert modelendpoint("validate", path) == (
        1,
        "",
        f"{path}:1: cannot be read: No such file or directory\n",
    )


def test_a_value_that_looks_like_markup_is_shown_as_it_is(folder):
    (folder / "b.yaml").write_text(manifest_text("b", uri="'[red]x[/red]'"))
    assert "'[red]x[/red]'" in modelendpoint("validate", folder)[2]


def test_validate_holds_the_endpoints_against_profiles(folder):
    (folder / "b.yaml").write_text(manifest_text("b") + "  resources: {profile: tpu}\n")
    expected = "b: resources.profile: no profile is named 'tpu'; there are cpu, gpu-t4\n"
    assert modelendpoint("validate", folder, "--profiles", folder.parent / "profiles.yaml") == (
        1,
        "",
        expected,
    )
    assert modelendpoint("validate", folder)[0] == 0


def test_render_prints_what_the_compiler_makes_for_this_machine(folder):
    code, output, complaint = modelendpoint("render", folder)
    expected = compile_serve_config(endpoints_of(folder), detect_machine()).document
    assert (code, output, complaint) == (0, expected + "\n", "")


def test_render_prints_what_the_compiler_makes_for_a_cluster(folder):
    (folder / "b.yaml").write_text(ON_A_GPU)
    code, output, _ = modelendpoint("render", folder, "--profiles", folder.parent / "profiles.yaml")
    assert (code, output) == (0, compile_serve_config(endpoints_of(folder), CLUSTER).document + "\n")


def test_render_can_indent(folder):
    flat, indented = modelendpoint("render", folder)[1], modelendpoint("render", folder, "--indent", 2)[1]
    assert indented.startswith('{\n  "applications": [\n')
    assert json.loads(indented) == json.loads(flat)


def test_render_refuses_an_endpoint_that_fits_nowhere(folder):
    (folder / "b.yaml").write_text(manifest_text("b") + "  resources: {memory: 9999Ti}\n")
    code, output, complaint = modelendpoint("render", folder)
    assert (code, output) == (1, "")
    assert complaint.startswith("b: resources.memory: asks for 9999Ti, and this machine has ")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("profiles: [", "while parsing"),
        ("[]", "got []; input should be a valid dictionary"),
        ("profiles: [{name: cpu, cpus: 1}]", "profiles.0.memory: is required"),
        (PROFILES + "  - {name: cpu, cpus: 1, memory: 1Gi}\n", "profiles: each name may be used once"),
        ("profiles: [{name: cpu, cpus: 1, memory: lots}]", "profiles.0.memory: "),
    ],
)
def test_bad_profiles_are_reported_with_their_file(folder, content, sentence):
    profiles = folder.parent / "profiles.yaml"
    profiles.write_text(content)
    code, output, complaint = modelendpoint("render", folder, "--profiles", profiles)
    assert (code, output) == (1, "")
    assert complaint.startswith(f"{profiles}: {sentence}")


def test_a_profiles_file_that_is_not_there_is_reported(folder):
    code, _, complaint = modelendpoint("render", folder, "--profiles", folder / "nope.yaml")
    assert code == 1
    assert "No such file or directory" in complaint


def test_an_unknown_command_is_a_mistake_in_the_usage():
    assert CliRunner().invoke(app, ["nope"]).exit_code == 2
