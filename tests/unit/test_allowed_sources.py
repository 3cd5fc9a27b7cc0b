"""What a replica checks of sources.allow: the mounted rules, and links."""

import os
import threading

import pytest

from serve_app.contract import ACCESS_VARIABLE, MODELS_VARIABLE
from serve_app.loading.sources import SourceError, allowed, fetch, folders


@pytest.fixture
def rules(tmp_path, monkeypatch):
    """Return a function that writes the mounted file; nobody waits for an edit."""
    monkeypatch.setattr(allowed, "PATIENCE_SECONDS", 0)
    monkeypatch.setenv(ACCESS_VARIABLE, str(tmp_path / "who"))
    file = tmp_path / "who" / allowed.RULES_FILE
    file.parent.mkdir(parents=True)
    return lambda *listed: file.write_text("".join(f"{rule}\n" for rule in listed))


@pytest.fixture
def volumes(tmp_path, monkeypatch):
    """Return a folder with volumes of two teams, each with a model."""
    root = tmp_path / "volumes"
    for team in ("team-a", "team-b"):
        (root / team / "model").mkdir(parents=True)
        (root / team / "model" / "config.json").write_text("{}")
    monkeypatch.setenv(folders.VOLUMES_VARIABLE, str(root))
    return root


def refusal(uri):
    with pytest.raises(SourceError) as caught:
        fetch(uri)
    return str(caught.value)


def test_without_a_file_everything_is_allowed(rules, volumes):
    assert fetch("pvc://team-b/model") == volumes / "team-b" / "model"


def test_what_no_rule_lets_in_is_refused_before_it_is_looked_for(rules, volumes):
    rules("pvc://team-a")
    assert fetch("pvc://team-a/model") == volumes / "team-a" / "model"
    said = "model.uri: {} is no allowed source; sources.allow of the chart has pvc://team-a"
    for uri in (
        "pvc://team-b/model",
        "pvc://team-b/nothing",
        f"file://{volumes}/team-a/model",
        "hf://org/name",
    ):
        assert refusal(uri) == said.format(uri)


@pytest.mark.parametrize("rule", ["file", "pvc"])
def test_a_whole_scheme_can_be_allowed(rules, volumes, rule):
    rules(rule)
    scheme = f"file://{volumes}" if rule == "file" else "pvc:/"
    assert fetch(f"{scheme}/team-b/model") == volumes / "team-b" / "model"


def test_a_folder_that_is_a_link_out_of_the_rule_is_refused(rules, volumes):
    (volumes / "team-a" / "stolen").symlink_to(volumes / "team-b" / "model")
    assert fetch("pvc://team-a/stolen").is_dir()
    rules("pvc://team-a")
    assert refusal("pvc://team-a/stolen") == (
        f"pvc://team-a/stolen: a link leads to {volumes}/team-b/model, where sources.allow of the chart lets "
        "no model be"
    )
    assert "a link leads to" in refusal("pvc://team-a/stolen/1_Pooling")


@pytest.mark.parametrize("below", ["", "1_Pooling"])
def test_a_file_that_is_a_link_out_of_the_rule_is_refused(rules, volumes, below):
    rules("pvc://team-a")
    folder = volumes / "team-a" / "model" / below
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").symlink_to("../" * (2 + bool(below)) + "team-b/model/config.json")
    assert "team-b/model/config.json, where" in refusal("pvc://team-a/model")


def test_a_link_to_a_folder_of_links_is_followed(rules, volumes):
    rules("pvc://team-a")
    (volumes / "team-a" / "elsewhere").mkdir()
    (volumes / "team-a" / "elsewhere" / "config.json").symlink_to(
        volumes / "team-b" / "model" / "config.json"
    )
    (volumes / "team-a" / "model" / "1_Pooling").symlink_to(volumes / "team-a" / "elsewhere")
    assert "team-b/model/config.json, where" in refusal("pvc://team-a/model")


def test_links_that_stay_inside_or_lead_to_another_rule_are_followed(rules, volumes):
    rules("pvc://team-a", f"file://{volumes}/team-b/model")
    (volumes / "team-a" / "latest").symlink_to("model")
    (volumes / "team-a" / "model" / "weights").symlink_to(volumes / "team-b" / "model")
    # A circle has an end.
    (volumes / "team-a" / "model" / "again").symlink_to(volumes / "team-a")
    assert fetch("pvc://team-a/latest") == volumes / "team-a" / "latest"


def test_the_end_of_a_rule_may_not_be_a_link_out_of_it(rules, volumes):
    (volumes / "team-a" / "public").symlink_to(volumes / "team-b")
    rules("pvc://team-a/public")
    assert "team-b/model, where" in refusal("pvc://team-a/public/model")


def test_the_place_of_the_models_may_be_a_link(rules, volumes, tmp_path, monkeypatch):
    (tmp_path / "models").symlink_to(volumes / "team-a")
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path / "models"))
    rules("file:///models")
    assert fetch("file:///models/model") == tmp_path / "models" / "model"


def test_a_folder_that_is_not_there_is_said_within_the_rules(rules, volumes):
    rules("pvc://team-a")
    assert refusal("pvc://team-a/nothing").endswith(f"there is no folder {volumes}/team-a/nothing")


def test_rules_that_cannot_be_read_let_nothing_in(rules, volumes, tmp_path):
    (tmp_path / "who" / allowed.RULES_FILE).write_bytes(b"\xff")
    assert "cannot be read" in refusal("pvc://team-a/model")
    rules("nonsense")
    assert "is no allowed source" in refusal("pvc://team-a/model")


def test_a_model_that_leads_to_secrets_of_the_server_is_refused_without_any_rule(rules, volumes, tmp_path):
    keys = tmp_path / "who" / "keys"
    keys.mkdir()
    (keys / "team-a").write_text("sk-secret")
    folder = tmp_path / "model"
    folder.mkdir()
    assert fetch(f"file://{folder}") == folder
    (folder / "vocab.txt").symlink_to(keys / "team-a")
    for uri in (f"file://{folder}", f"file://{keys}", "file:///proc/self", f"file://{tmp_path}"):
        with pytest.raises(SourceError, match="where secrets of the server are"):
            fetch(uri)


def test_a_list_that_has_just_been_edited_is_waited_for(rules, volumes, tmp_path, monkeypatch):
    monkeypatch.setattr(allowed, "PATIENCE_SECONDS", 30)
    monkeypatch.setattr(allowed, "POLL_SECONDS", 0.01)
    rules("pvc://team-b")

    def edit():
        # As the kubelet does it.
        (tmp_path / "edited").write_text("pvc://team-a\n")
        os.replace(tmp_path / "edited", tmp_path / "who" / allowed.RULES_FILE)

    edited = threading.Timer(0.05, edit)
    edited.start()
    try:
        assert fetch("pvc://team-a/model") == volumes / "team-a" / "model"
    finally:
        edited.join()
