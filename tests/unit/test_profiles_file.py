"""The mounted file of profiles: reread when it changes, and its valid content kept."""

import logging

import pytest

from endpoint_operator.api.profiles import InvalidProfilesError
from endpoint_operator.controller.profiles_file import ProfilesFile

PROFILES = "profiles: [{name: cpu, cpus: 8, memory: 16Gi}]"


def test_profiles_are_taken_over_when_their_file_changes(tmp_path):
    path = tmp_path / "profiles.yaml"
    path.write_text(PROFILES)
    file = ProfilesFile(path)
    assert not file.reread()
    path.write_text(PROFILES.replace("cpu,", "other,"))
    assert file.reread()
    assert list(file.profiles.by_name) == ["other"]


def test_an_invalid_file_is_complained_of_once_and_the_valid_profiles_stay(tmp_path, caplog):
    path = tmp_path / "profiles.yaml"
    path.write_text(PROFILES)
    file = ProfilesFile(path)
    path.write_text("profiles: [{name: cpu}]")
    with caplog.at_level(logging.ERROR):
        file.reread()
        file.reread()
    assert file.invalid
    assert [record.message.count("profiles.0.cpus: is required") for record in caplog.records] == [1]
    assert list(file.profiles.by_name) == ["cpu"]
    path.write_text(PROFILES)
    assert not file.reread()
    assert not file.invalid


@pytest.mark.parametrize("text", [None, "", "profiles: []", "a: ["])
def test_without_profiles_there_is_no_start(tmp_path, text):
    path = tmp_path / "profiles.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InvalidProfilesError, match=r"profiles\.yaml"):
        ProfilesFile(path)
