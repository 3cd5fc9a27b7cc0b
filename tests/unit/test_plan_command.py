"""`modelendpoint plan` against a rendered file, as a person and as a pipeline call it."""

import json

import pytest

from tests.harness.builders import manifest_text
from tests.unit.test_cli import PROFILES, modelendpoint


@pytest.fixture
def folder(tmp_path):
    """A folder with the endpoints a and b, and what they compile to in rendered.json beside it."""
    folder = tmp_path / "manifests"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.yaml").write_text(manifest_text(name))
    (tmp_path / "profiles.yaml").write_text(PROFILES)
    code, rendered, _ = modelendpoint("render", folder, "--profiles", tmp_path / "profiles.yaml")
    assert code == 0
    (tmp_path / "rendered.json").write_text(rendered)
    return folder


def plan(folder, *options):
    """Plan the folder's manifests against what was rendered of them at first."""
    return modelendpoint(
        *("plan", folder, "--against", folder.parent / "rendered.json"),
        *("--profiles", folder.parent / "profiles.yaml", *options),
    )


def test_without_a_change_nothing_changes(folder):
    code, output, complaint = plan(folder, "--exit-code")
    assert (code, complaint) == (0, "")
    assert [line.split() for line in output.splitlines()] == [
        ["NAME", "PLAN", "WHY"],
        ["a", "unchanged"],
        ["b", "unchanged"],
    ]


def test_each_change_has_a_line(folder):
    (folder / "a.yaml").write_text(manifest_text("a") + "  batching: {maxBatchSize: 8, maxBatchTokens: 9}\n")
    (folder / "c.yaml").write_text(manifest_text("c"))
    code, output, _ = plan(folder)
    assert code == 0
    assert output.splitlines() == [
        "NAME   PLAN        WHY",
        "a      live        batching.maxBatchSize: 16 → 8, taken over in place",
        "                   batching.maxBatchTokens: 4096 → 9, taken over in place",
        "b      unchanged",
        "c      new         it is not served yet",
    ]


def test_changes_are_an_exit_status_if_asked_for(folder):
    (folder / "c.yaml").write_text(manifest_text("c"))
    assert plan(folder)[0] == 0
    assert plan(folder, "--exit-code")[0] == 2


def test_a_program_gets_the_same_as_json(folder):
    (folder / "b.yaml").unlink()
    (folder / "a.yaml").write_text(manifest_text("a") + "  resources: {cpus: 2}\n")
    change = {
        "field": "resources.cpus",
        "from": 1.0,
        "to": 2.0,
        "effect": "replicas are replaced, without a gap",
    }
    expected = {"name": "a", "plan": "restart", "changes": [change], "reason": ""}
    assert json.loads(plan(folder, "-o", "json")[1]) == {"endpoints": [expected]}


def test_a_rejection_is_an_error_and_the_others_are_planned(folder):
    (folder / "a.yaml").write_text(manifest_text("a") + "  resources: {profile: tpu}\n")
    code, output, _ = plan(folder, "--exit-code")
    assert code == 1
    assert "a      rejected    resources.profile: no profile is named 'tpu'" in output
    assert "b      unchanged" in output


def test_an_indented_file_is_the_same(folder):
    rendered = folder.parent / "rendered.json"
    rendered.write_text(json.dumps(json.loads(rendered.read_text()), indent=2))
    assert plan(folder, "--exit-code")[0] == 0


@pytest.mark.parametrize("content", ["", "{}", '{"applications": []}', "applications: [", "[1]"])
def test_a_file_that_render_did_not_print_is_an_error(folder, content):
    (folder.parent / "rendered.json").write_text(content)
    code, output, complaint = plan(folder)
    assert (code, output) == (1, "")
    assert complaint.endswith("holds no Serve configuration such as `modelendpoint render` prints\n")


def test_a_file_that_is_not_there_is_an_error(folder):
    (folder.parent / "rendered.json").unlink()
    code, _, complaint = plan(folder)
    assert code == 1
    assert "No such file" in complaint


def test_a_broken_manifest_is_reported_with_its_line(folder):
    (folder / "a.yaml").write_text(manifest_text("a", task="nope"))
    code, output, complaint = plan(folder)
    assert (code, output) == (1, "")
    assert complaint.startswith(f"{folder / 'a.yaml'}:7: spec.model.task: got 'nope'")
