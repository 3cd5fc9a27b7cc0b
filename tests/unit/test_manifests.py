import json
import os
from pathlib import Path

import pytest
import yaml

from endpoint_operator.local.manifests import manifest_paths, read_manifest
from tests.harness.builders import manifest, manifest_text

HEAD = "apiVersion: serving.modelendpoint.dev/v1alpha1\nkind: ModelEndpoint\nmetadata: {name: a}\n"


@pytest.fixture
def errors_in(tmp_path):
    """Return what reading a file with this content finds: lines and messages."""

    def read(content, name="model.yaml"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return [(error.line, error.message) for error in read_manifest(path).errors]

    return read


def test_a_file_gives_its_endpoints_and_their_lines(tmp_path):
    path = tmp_path / "models.yaml"
    path.write_text(f"# two of them\n{manifest_text('a')}---\n{manifest_text('b')}")
    read = read_manifest(path)
    assert [(located.endpoint.name, located.line) for located in read.endpoints] == [("a", 2), ("b", 10)]
    assert read.errors == ()


@pytest.mark.parametrize("content", ["", "# nothing yet\n", "---\n---\n", "---\n# nothing\n...\n"])
def test_an_empty_file_is_no_error(errors_in, content):
    assert errors_in(content) == []


def test_a_json_file_is_read_too(errors_in):
    assert errors_in(json.dumps(manifest(), indent=2), "model.json") == []


def test_a_json_file_may_be_indented_with_tabs(errors_in):
    assert errors_in(json.dumps(manifest(), indent="\t"), "model.json") == []


def test_an_error_reads_as_file_line_and_sentence(tmp_path):
    path = tmp_path / "model.yaml"
    path.write_text(manifest_text(uri="nope"))
    [error] = read_manifest(path).errors
    assert str(error).startswith(f"{path}:6: spec.model.uri: uri must be hf://org/name")


def test_a_syntax_error_has_its_line(errors_in):
    assert errors_in("a: 1\nb: [1\nc: 2\n") == [(3, "is not valid YAML: expected ',' or ']', but got ':'")]


def test_a_key_that_is_there_twice_is_an_error_at_the_second(errors_in):
    content = manifest_text() + "  suspend: true\n  suspend: false\n"
    assert errors_in(content) == [(9, "is not valid YAML: the key 'suspend' is there twice")]


def test_a_key_that_is_there_twice_is_found_inside_lists_and_flow_mappings(errors_in):
    assert errors_in("a:\n  - {b: 1, c: {d: 1, d: 2}}\n") == [
        (2, "is not valid YAML: the key 'd' is there twice")
    ]


def test_a_field_in_a_flow_mapping_has_its_own_line(errors_in):
    content = HEAD + "spec: {model: {uri: hf://a/b,\n  task: fill-mask},\n  batching: {maxBatchSize:\n  0}}\n"
    [(line, message)] = errors_in(content)
    assert (line, message.partition(":")[0]) == (6, "spec.batching.maxBatchSize")


def test_a_problem_in_the_second_document_has_its_line_in_the_file(errors_in):
    [(line, message)] = errors_in(f"{manifest_text('a')}---\n{manifest_text('b', task='nope')}")
    assert (line, message.partition(":")[0]) == (15, "spec.model.task")


def test_every_problem_of_every_document_is_reported(errors_in):
    lines = [line for line, _ in errors_in(f"{manifest_text('A')}---\n{manifest_text('b', task='nope')}")]
    assert lines == [3, 15]


def test_a_missing_field_points_to_the_part_that_lacks_it(errors_in):
    content = HEAD + "spec:\n  suspend: false\n  model:\n    uri: hf://a/b\n"
    assert errors_in(content) == [(6, "spec.model.task: is required")]


def test_a_missing_section_points_to_its_parent(errors_in):
    assert errors_in(HEAD + "spec:\n  suspend: false\n") == [(4, "spec.model: is required")]


def test_a_missing_root_field_points_to_the_document(errors_in):
    content = f"# comment\n{manifest_text().partition(chr(10))[2]}"
    assert errors_in(content) == [(2, "apiVersion: is required")]


def test_an_unknown_parameter_points_to_the_parameters(errors_in):
    content = (
        HEAD + "spec:\n  model:\n    uri: hf://a/b\n    task: fill-mask\n    parameters:\n      nope: 1\n"
    )
    [(line, message)] = errors_in(content)
    assert line in (8, 9)
    assert "nope" in message


def test_another_kind_is_an_error_with_ours(errors_in):
    content = manifest_text().replace("ModelEndpoint", "ConfigMap", 1)
    assert errors_in(content) == [(2, "kind: got 'ConfigMap'; input should be 'ModelEndpoint'")]


@pytest.mark.parametrize("content", ["- a\n", "text\n", "1\n", "false\n"])
def test_a_document_that_is_no_mapping_is_an_error(errors_in, content):
    [(line, message)] = errors_in(content)
    assert line == 1
    assert message.startswith("got ")


@pytest.mark.parametrize(
    "content",
    ["name: {{ .Values.name }}\n", "{{ if .Values.on }}\n", "[a]: 1\n", "? {a: 1}\n: 2\n", "? [a, b]\n"],
)
def test_a_template_that_was_never_filled_in_is_an_error_and_no_crash(errors_in, content):
    [(line, message)] = errors_in(content)
    assert line == 1
    assert message.startswith("is not valid YAML: ")


@pytest.mark.parametrize(
    "content",
    ["a: \x01\n", "a: 2024-99-99\n", "a: !!python/object:os.system x\n", "a: *nowhere\n"],
)
def test_other_yaml_that_cannot_be_read_is_an_error(errors_in, content):
    [(_, message)] = errors_in(content)
    assert message.startswith(("is not valid YAML: ", "is nested too deeply"))
    assert "\n" not in message


@pytest.mark.parametrize("content", ["a: &a [*a]\n", "a: 1\nspec: &s {model: *s}\n", "a: &a {<<: *a}\n"])
def test_what_contains_itself_is_an_error(errors_in, content):
    [(line, message)] = errors_in(content)
    assert (line, message) == (content.count("\n"), "contains itself by an alias")


def multiplied(first, rest):
    """Return YAML of nine levels, each with nine times the one before: 387 million values."""
    levels = [f"a0: &a0 {first}"]
    levels += [f"a{n}: &a{n} {rest.format(', '.join([f'*a{n - 1}'] * 9))}" for n in range(1, 10)]
    return "\n".join(levels)


@pytest.mark.parametrize(
    "bomb", [multiplied("x", "[{}]"), multiplied("{b: x}", "{{<<: [{}]}}")], ids=["lists", "merges"]
)
def test_aliases_that_multiply_are_an_error(errors_in, bomb):
    [(line, message)] = errors_in(bomb)
    assert 1 < line <= 10
    assert message.startswith("has more than 200000 values, counting what aliases repeat")


def test_an_alias_that_repeats_a_little_is_read(tmp_path):
    document = manifest("a")
    document["metadata"]["labels"] = document["metadata"]["annotations"] = {"team": "a"}
    file = tmp_path / "aliases.yaml"
    file.write_text(yaml.safe_dump(document))
    assert "*id001" in file.read_text()
    assert read_manifest(file).errors == ()


def test_a_file_without_an_end_is_an_error():
    [error] = read_manifest(Path("/dev/zero")).errors
    assert error.message == "is larger than 8 MiB; split it"


def test_a_pipe_in_a_folder_is_passed_over(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    assert manifest_paths([tmp_path]) == []


def test_very_deep_nesting_is_an_error(errors_in):
    assert errors_in("[" * 1500) == [(1, "is nested too deeply")]


def test_bytes_that_are_no_text_are_an_error(errors_in):
    assert errors_in(b"a: \xff\xfe\n") == [(1, "is not UTF-8: invalid start byte at byte 3")]


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    path = tmp_path / "nope.yaml"
    [error] = read_manifest(path).errors
    assert str(error) == f"{path}:1: cannot be read: No such file or directory"


def test_a_folder_in_place_of_a_file_is_an_error(tmp_path):
    [error] = read_manifest(tmp_path).errors
    assert error.message == "cannot be read: Is a directory"


def test_a_folder_means_its_manifests_in_order(tmp_path):
    for name in ("b.yaml", "a.yml", "c.json", "notes.txt", "yaml"):
        (tmp_path / name).touch()
    assert [path.name for path in manifest_paths([tmp_path])] == ["a.yml", "b.yaml", "c.json"]


def test_a_file_that_is_named_twice_is_read_once(tmp_path):
    path = tmp_path / "a.yaml"
    path.touch()
    assert manifest_paths([path, tmp_path, path]) == [path]
