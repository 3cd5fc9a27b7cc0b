"""The file of keys on one machine, and the folder that is made of it."""

import json
import os
import shutil
import stat

import pytest

from endpoint_operator.local.access import KeysFileError, KeysOptions, keys_folder, read_keys_file
from serve_app.access.folder import AccessFolder
from serve_app.contract import ACCESS_VARIABLE

SECRET = "sk-secret"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "keys.yaml"
    path.write_text(f"team-a: {SECRET}\nteam-b: [one, two]\n")
    return path


def test_a_line_is_a_key_and_a_list_is_several(file):
    assert read_keys_file(file) == {"team-a": SECRET, "team-b": "one\ntwo"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no keys"),
        ("[sk-secret]", "has no keys"),
        ("sk-secret", "has no keys"),
        ("a: 1", "a: must be a text"),
        ("a:", "a: must be a text"),
        ("a: []", "a: must be a text"),
        ("a: {sk-secret: 1}", "a: must be a text"),
        ("sk-secret/+: a", "name 1 is none"),
        ("a/b: sk-secret", "name 1 is none"),
        ("..a: sk-secret", "name 1 is none"),
        ("a: sk-secret\n  b: [", "is no YAML at line 2"),
        ("a: &x sk-secret\nb: 'sk-secret", "is no YAML"),
    ],
)
def test_what_is_no_file_of_keys_is_told_without_a_key(file, text, said):
    file.write_text(text)
    with pytest.raises(KeysFileError, match=said) as error:
        read_keys_file(file)
    assert SECRET not in str(error.value)


def test_a_file_that_is_missing_binary_or_huge_is_refused(file):
    for content in (b"\xff\xfe", b"a" * 2_000_000):
        file.write_bytes(content)
        with pytest.raises(KeysFileError):
            read_keys_file(file)
    file.unlink()
    with pytest.raises(KeysFileError, match="cannot be read"):
        read_keys_file(file)


def test_the_folder_is_what_replicas_read_and_nobody_else_may(file):
    with keys_folder(KeysOptions(file, optional=True, hide=True)):
        access = AccessFolder.of_environment()
        assert (access.policy.mode, access.policy.hides) == ("optional", True)
        assert access.policy.caller_of({"x-api-key": SECRET}) == "team-a"
        folder = os.environ[ACCESS_VARIABLE]
        with open(os.path.join(folder, "keys", "team-a"), encoding="utf-8") as text:
            assert SECRET not in text.read()
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    assert ACCESS_VARIABLE not in os.environ
    assert not os.path.exists(folder)


def test_a_change_replaces_files_and_removes_those_of_others(file):
    with keys_folder(KeysOptions(file)) as folder:
        file.write_text("team-b: three\n")
        folder.write()
        names = sorted(os.listdir(os.path.join(os.environ[ACCESS_VARIABLE], "keys")))
        assert names == ["team-b"]
        file.write_text("nothing")
        with pytest.raises(KeysFileError):
            folder.write()
        assert AccessFolder.of_environment().policy.caller_of({"x-api-key": "three"}) == "team-b"


def test_a_folder_that_was_cleaned_away_is_made_again(file):
    with keys_folder(KeysOptions(file)) as folder:
        shutil.rmtree(os.environ[ACCESS_VARIABLE])
        folder.write()
        assert AccessFolder.of_environment().policy.caller_of({"x-api-key": SECRET}) == "team-a"


def test_without_a_file_nobody_is_asked_for_a_key():
    with keys_folder(None) as folder:
        assert folder is None
        assert ACCESS_VARIABLE not in os.environ


def test_the_variable_of_the_user_comes_back(file, monkeypatch):
    monkeypatch.setenv(ACCESS_VARIABLE, "/elsewhere")
    with keys_folder(KeysOptions(file)):
        assert os.environ[ACCESS_VARIABLE] != "/elsewhere"
        settings = os.path.join(os.environ[ACCESS_VARIABLE], "access", "access.json")
        with open(settings, encoding="utf-8") as text:
            assert json.load(text) == {"keys": "required", "notAllowed": 403}
    assert os.environ[ACCESS_VARIABLE] == "/elsewhere"
