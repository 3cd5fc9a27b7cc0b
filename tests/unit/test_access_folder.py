"""The folder that says who may ask, as a kubelet and the command change it."""

import json

import pytest

from serve_app.access import folder as access_folder
from serve_app.access.folder import AccessFolder
from serve_app.access.policy import KeysMode
from serve_app.http.errors import UnauthorizedError


@pytest.fixture(autouse=True)
def _look_each_time(monkeypatch):
    monkeypatch.setattr(access_folder, "CHECK_SECONDS", -1)


@pytest.fixture
def mounted(tmp_path):
    """Return a function that mounts settings and keys as the kubelet does: by a link that is replaced."""
    for part in ("access", "keys"):
        (tmp_path / part).mkdir()

    def mount(settings, /, **keys):
        replace(tmp_path / "access", {"access.json": json.dumps(settings)})
        replace(tmp_path / "keys", keys)
        return tmp_path

    return mount


def replace(folder, files):
    version = folder / f"..version-{len(list(folder.iterdir()))}"
    version.mkdir()
    for name, text in files.items():
        (version / name).write_text(text)
    (folder / "..data_tmp").symlink_to(version.name)
    (folder / "..data_tmp").rename(folder / "..data")
    for stale in [
        path for path in folder.iterdir() if not path.name.startswith("..") and path.name not in files
    ]:
        stale.unlink()
    for name in files:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")


def caller(access, key):
    return access.policy.caller_of({"x-api-key": key})


def test_without_a_folder_nobody_is_asked():
    assert AccessFolder(None).policy.mode is KeysMode.OFF


def test_keys_come_and_go_without_a_restart(mounted):
    access = AccessFolder(mounted({"keys": "required"}, a="old"))
    assert caller(access, "old") == "a"
    mounted({"keys": "required"}, a="old\nnew", b="other")
    assert [caller(access, key) for key in ("old", "new", "other")] == ["a", "a", "b"]
    mounted({"keys": "required"}, a="new")
    for gone in ("old", "other"):
        with pytest.raises(UnauthorizedError):
            caller(access, gone)
    assert caller(access, "new") == "a"


def test_the_mode_changes_without_a_restart(mounted):
    access = AccessFolder(mounted({"keys": "off"}))
    assert access.policy.mode is KeysMode.OFF
    mounted({"keys": "optional", "notAllowed": 404})
    assert (access.policy.mode, access.policy.hides) == (KeysMode.OPTIONAL, True)


def test_what_can_not_be_read_at_the_start_lets_nobody_in(tmp_path):
    access = AccessFolder(tmp_path / "missing")
    with pytest.raises(UnauthorizedError):
        access.policy.caller_of({})


def test_what_can_not_be_read_later_leaves_what_held(mounted, caplog):
    access = AccessFolder(mounted({"keys": "required"}, a="key"))
    assert caller(access, "key") == "a"
    mounted({"keys": "wrong"}, a="key")
    assert caller(access, "key") == "a"
    assert "does not say who may ask" in caplog.text
    mounted({"keys": "required"}, a="next")
    assert caller(access, "next") == "a"


def test_a_bad_entry_is_logged_without_its_value(mounted, caplog):
    access = AccessFolder(mounted({"keys": "required"}, a="key", b="sha256:secret"))
    assert caller(access, "key") == "a"
    assert "the key 'b' begins with sha256:" in caplog.text
    assert "secret" not in caplog.text


def test_a_change_that_has_left_the_time_of_the_folder_alone_is_seen_by_the_second_look(mounted, monkeypatch):
    access = AccessFolder(mounted({"keys": "required"}, a="old"))
    monkeypatch.setattr(access_folder, "_changed_at", lambda folder: 1)
    assert caller(access, "old") == "a"
    mounted({"keys": "required"}, a="new")
    assert caller(access, "new") == "a"


def test_the_folder_is_not_read_for_each_request(mounted, monkeypatch):
    monkeypatch.setattr(access_folder, "CHECK_SECONDS", 60)
    access = AccessFolder(mounted({"keys": "required"}, a="key"))
    assert caller(access, "key") == "a"
    monkeypatch.setattr(access_folder, "_changed_at", None)
    assert caller(access, "key") == "a"
