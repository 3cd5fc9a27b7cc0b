import pytest

from endpoint_operator.local.manifests import Workspace
from tests.unit.builders import manifest_text


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.yaml").write_text(manifest_text("a"))
    (tmp_path / "b.yaml").write_text(manifest_text("b"))
    return tmp_path


@pytest.fixture
def workspace(folder):
    workspace = Workspace([folder])
    assert workspace.reread() == ()
    return workspace


def names(workspace):
    return [endpoint.name for endpoint in workspace.endpoints]


def test_the_endpoints_of_all_files_are_there(workspace):
    assert names(workspace) == ["a", "b"]


def test_a_broken_file_keeps_its_last_good_content(folder, workspace):
    (folder / "a.yaml").write_text("broken: [")
    [error] = workspace.reread()
    assert error.path == folder / "a.yaml"
    assert names(workspace) == ["a", "b"]


def test_a_file_with_one_bad_document_keeps_all_of_its_last_good_content(folder, workspace):
    (folder / "a.yaml").write_text(f"{manifest_text('new')}---\n{manifest_text('a', task='nope')}")
    assert len(workspace.reread()) == 1
    assert names(workspace) == ["a", "b"]


def test_a_broken_file_stays_broken_until_it_is_fixed(folder, workspace):
    (folder / "a.yaml").write_text("broken: [")
    workspace.reread()
    assert len(workspace.reread()) == 1
    (folder / "a.yaml").write_text(manifest_text("a", uri="file:///models/other"))
    assert workspace.reread() == ()
    assert workspace.endpoints[0].spec.model.uri == "file:///models/other"


def test_a_broken_file_that_was_never_good_gives_nothing(folder):
    (folder / "a.yaml").write_text("broken: [")
    workspace = Workspace([folder])
    assert len(workspace.reread()) == 1
    assert names(workspace) == ["b"]


def test_the_endpoints_of_a_deleted_file_go(folder, workspace):
    (folder / "a.yaml").unlink()
    assert workspace.reread() == ()
    assert names(workspace) == ["b"]


def test_a_new_file_is_taken_over(folder, workspace):
    (folder / "c.yaml").write_text(manifest_text("c"))
    assert workspace.reread() == ()
    assert names(workspace) == ["a", "b", "c"]


def test_a_name_in_two_files_is_an_error_in_the_second(folder):
    (folder / "b.yaml").write_text(f"# a copy\n{manifest_text('a')}")
    workspace = Workspace([folder])
    [error] = workspace.reread()
    expected = f"metadata.name: 'a' is already defined in {folder / 'a.yaml'}"
    assert (error.path, error.line, error.message) == (folder / "b.yaml", 2, expected)
    assert names(workspace) == ["a"]


def test_a_name_twice_in_one_file_is_an_error(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(f"{manifest_text('a')}---\n{manifest_text('a')}")
    [error] = Workspace([path]).reread()
    assert (error.line, error.message) == (9, f"metadata.name: 'a' is already defined in {path}")


def test_a_name_may_move_to_another_file(folder, workspace):
    (folder / "a.yaml").write_text(manifest_text("b"))
    (folder / "b.yaml").write_text(manifest_text("a"))
    assert workspace.reread() == ()
    assert names(workspace) == ["b", "a"]


def test_a_name_is_never_there_twice_when_a_copy_comes_first(folder, workspace):
    (folder / "0.yaml").write_text(manifest_text("b"))
    assert len(workspace.reread()) == 1
    assert sorted(names(workspace)) == ["a", "b"]


def test_a_name_is_never_there_twice_when_its_broken_file_still_holds_it(folder, workspace):
    (folder / "0.yaml").write_text(manifest_text("b"))
    (folder / "b.yaml").write_text("broken: [")
    workspace.reread()
    assert sorted(names(workspace)) == ["a", "b"]
