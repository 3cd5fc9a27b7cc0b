import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from serve_app.contract import MODELS_VARIABLE
from serve_app.loading.sources import SourceError, commit_of, fetch, folders
from serve_app.loading.sources.hub import TOKENS_VARIABLE
from tests.unit import hub_double

ROOT = Path(__file__).parents[2]

FETCH = """
import json, sys
from serve_app.loading.sources import SourceError, fetch
def outcome(*arguments):
    try:
        return {"folder": str(fetch(*arguments))}
    except SourceError as error:
        return {"error": str(error)}
    except Exception as error:
        return {"crash": repr(error)}
print(json.dumps([outcome(*arguments) for arguments in json.loads(sys.argv[1])]))
"""


@pytest.fixture(autouse=True)
def no_folders_of_the_user(monkeypatch):
    monkeypatch.delenv(MODELS_VARIABLE, raising=False)
    monkeypatch.delenv(folders.VOLUMES_VARIABLE, raising=False)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with a model folder inside; running its code would fail."""
    folder = tmp_path / "site" / "models_inside"
    (folder / "sentiment").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise SystemExit('the code of a model package was run')")
    monkeypatch.syspath_prepend(folder.parent)
    return folder


def refusal(uri):
    with pytest.raises(SourceError) as caught:
        fetch(uri)
    return str(caught.value)


def test_a_file_uri_is_a_folder(tmp_path):
    assert fetch(f"file://{tmp_path}") == tmp_path


def test_a_folder_stands_in_for_slash_models(tmp_path, monkeypatch):
    (tmp_path / "sentiment").mkdir()
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path))
    assert fetch("file:///models/sentiment") == tmp_path / "sentiment"
    assert fetch("file:///models") == tmp_path


def test_the_stand_in_is_for_that_folder_only(tmp_path, monkeypatch):
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path / "stand-in"))
    monkeypatch.setattr(folders, "MODELS_FOLDER", str(tmp_path / "models"))
    other = tmp_path / "models-2"
    other.mkdir()
    assert fetch(f"file://{other}") == other


def test_a_volume_is_a_folder_below_the_volumes(tmp_path, monkeypatch):
    (tmp_path / "claim" / "a" / "b").mkdir(parents=True)
    monkeypatch.setenv(folders.VOLUMES_VARIABLE, str(tmp_path))
    assert fetch("pvc://claim/a/b") == tmp_path / "claim" / "a" / "b"


def test_a_package_is_found_without_running_its_code(package):
    assert fetch("package://models_inside/sentiment") == package / "sentiment"
    assert fetch("package://models_inside") == package
    assert "models_inside" not in sys.modules


def test_a_package_uri_cannot_name_a_folder_outside_the_package(package):
    uri = f"package://models_inside/{package.parent}"
    assert refusal(uri).startswith(f"{uri}: there is no folder {package}/")


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("file:///nope/model", "file:///nope/model: there is no folder /nope/model"),
        (
            "file:///My%20Models/x",
            "file:///My%20Models/x: there is no folder /My%20Models/x; %20 is not decoded: give the folder a "
            "name or a link without blanks",
        ),
        ("pvc://claim/model", "pvc://claim/model: there is no folder /volumes/claim/model"),
        (
            "package://nope_inside/a",
            "package://nope_inside/a: no Python package 'nope_inside' is installed here",
        ),
        (
            "package://json.decoder/a",
            "package://json.decoder/a: no Python package 'json.decoder' is installed here",
        ),
        ("package://typing/a", "package://typing/a: no Python package 'typing' is installed here"),
        ("s3://bucket/model", "s3://bucket/model: the scheme must be one of hf, file, pvc, package"),
        ("/models/a", "/models/a: the scheme must be one of hf, file, pvc, package"),
        ("file:///models/../etc", "file:///models/../etc: the path must not contain '..'"),
        ("pvc://claim/../../etc", "pvc://claim/../../etc: the path must not contain '..'"),
        ("package://pip/..", "package://pip/..: the path must not contain '..'"),
        ("hf://org/..", "hf://org/..: the path must not contain '..'"),
    ],
)
def test_a_model_that_is_not_there_is_refused_with_what_was_looked_for(uri, sentence):
    assert refusal(uri) == sentence


def test_a_file_is_no_folder(tmp_path):
    file = tmp_path / "model.safetensors"
    file.touch()
    assert refusal(f"file://{file}") == f"file://{file}: there is no folder {file}"


def fetched(endpoint, cache, *arguments, **variables):
    """Return the outcome of each fetch; the hub's library reads its settings once, so in a process."""
    settings = {
        "HF_ENDPOINT": endpoint,
        "HF_HUB_CACHE": str(cache),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
        "PYTHONPATH": str(ROOT),
    }
    process = subprocess.run(
        [sys.executable, "-c", FETCH, json.dumps(arguments)],
        env=os.environ | settings | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


class Hub:
    """What a process got from the double of the hub, and what the double was asked."""

    def __init__(self, cache):
        with hub_double.running_hub() as (url, self.asked):
            outcomes = fetched(
                url,
                cache,
                ("hf://org/name", hub_double.COMMIT),
                ("hf://org/name", "v1"),
                ("hf://org/name", ""),
                ("hf://org/nope", ""),
                ("hf://org/name", "v999"),
                ("hf://org/not--allowed", ""),
                ("hf://org/busy", ""),
            )
        self.pinned, self.tagged, self.latest, self.unknown, self.no_revision, *others = outcomes
        self.bad_name, self.busy = others


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    return Hub(tmp_path_factory.mktemp("cache"))


def test_a_hub_model_is_downloaded_at_its_commit(hub):
    folder = Path(hub.pinned["folder"])
    assert folder.name == hub_double.COMMIT
    assert (folder / "model.safetensors").read_bytes() == b"weights"


def test_only_weights_configuration_and_tokenizer_are_downloaded(hub):
    folder = Path(hub.pinned["folder"])
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    tokenizers = {"tokenizer.model", "vocab.txt", "source.spm", "bpe.codes"}
    assert names == {"config.json", "model.safetensors", *tokenizers}
    assert not [path for path in hub.asked if path.endswith((".py", ".bin", ".md"))]


def test_a_tag_and_no_revision_lead_to_a_commit_too(hub):
    assert hub.tagged == hub.latest == hub.pinned


def test_the_commit_that_is_served_can_be_told(hub):
    for found in (hub.pinned, hub.tagged, hub.latest):
        assert commit_of("hf://org/name", Path(found["folder"])) == hub_double.COMMIT
    assert commit_of("pvc://claim/snapshots/folder", Path("/volumes/claim/snapshots/folder")) == ""
    # In an image, the folder is one of ours.
    assert commit_of("hf://org/name", Path("/models/hub/name")) == ""


def test_a_file_is_asked_for_at_the_commit_and_not_at_the_name(hub):
    files = [path for path in hub.asked if "/resolve/" in path]
    assert files
    assert all(f"/resolve/{hub_double.COMMIT}/" in path for path in files)


def test_a_repository_that_is_not_there_is_refused_with_its_name(hub):
    assert hub.unknown["error"].startswith("hf://org/nope: the hub refused it: ")
    assert "not found" in hub.unknown["error"].lower()
    assert "\n" not in hub.unknown["error"]


def test_a_revision_that_is_not_there_is_refused_with_its_name(hub):
    assert hub.no_revision["error"].startswith("hf://org/name at revision v999: the hub refused it: ")
    assert "\n" not in hub.no_revision["error"]


def test_a_name_that_the_hub_forbids_is_refused_as_such(hub):
    assert hub.bad_name.get("error", "").startswith("hf://org/not--allowed: ")


def test_a_hub_that_does_not_answer_is_refused_with_what_is_missing(tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        [outcome] = fetched(url, tmp_path, ("hf://org/name", "v1"))
    said = "hf://org/name at revision v1: the hub cannot be reached and the model is not cached here: "
    assert outcome["error"].startswith(said)
    assert "refused" in outcome["error"]


def test_the_status_of_a_hub_that_refuses_is_told(hub):
    assert hub.busy["error"].startswith("hf://org/busy: ")
    assert "429" in hub.busy["error"]


@pytest.fixture
def tokens(tmp_path):
    """A folder of tokens as the chart mounts it."""
    folder = tmp_path / "tokens"
    folder.mkdir()
    (folder / "team-a").write_text(f"{hub_double.TOKEN}\n")
    (folder / "team-b").write_text("hf_of_team_b")
    (folder / "mistaken").write_text("hf_secret\nX-Other: 1")
    (folder / "binary").write_bytes(b"hf_secret\xff")
    return folder


def fetched_with(tokens, tmp_path, *secrets, **variables):
    """Return the outcome of fetching the gated model with the token of each Secret, one after another."""
    variables |= {TOKENS_VARIABLE: str(tokens)}
    with hub_double.running_hub() as (url, _):
        asked = ((f"hf://{hub_double.GATED}", hub_double.COMMIT, secret) for secret in secrets)
        return fetched(url, tmp_path / "cache", *asked, **variables)


def test_a_gated_model_is_downloaded_with_the_endpoint_s_own_token(tokens, tmp_path):
    [own, default] = fetched_with(tokens, tmp_path, "team-a", "")
    assert (Path(own["folder"]) / "model.safetensors").read_bytes() == b"weights"
    assert Path(own["folder"]).name == hub_double.COMMIT
    assert "401" in default["error"]


def test_what_one_token_has_downloaded_is_not_given_to_another(tokens, tmp_path):
    outcomes = fetched_with(tokens, tmp_path, "team-a", "team-b", "", HF_TOKEN="hf_of_nobody")
    assert ["folder" in outcome for outcome in outcomes] == [True, False, False]
    # Nor what the default token has.
    default, other = fetched_with(tokens, tmp_path, "", "team-b", HF_TOKEN=hub_double.TOKEN)
    assert ("folder" in default, "folder" in other) == (True, False)


def test_the_default_token_is_not_used_for_an_endpoint_with_its_own(tokens, tmp_path):
    [outcome] = fetched_with(tokens, tmp_path, "team-b", HF_TOKEN=hub_double.TOKEN)
    assert "the hub refused it" in outcome["error"]


@pytest.mark.parametrize(
    ("secret", "sentence"),
    [
        ("nobody", "there is no token of a Secret 'nobody' here; the Secret must have the key token, and"),
        ("mistaken", "the key token of the Secret 'mistaken' must hold one word of ASCII"),
        ("binary", "the key token of the Secret 'binary' must hold one word of ASCII"),
    ],
)
def test_a_token_that_is_none_is_refused_and_never_quoted(tokens, tmp_path, secret, sentence):
    [outcome] = fetched_with(tokens, tmp_path, secret)
    assert outcome["error"].startswith(f"model.tokenSecret: {sentence}")
    assert "hf_secret" not in outcome["error"]
