"""Keys and policy: who a client is."""

from hashlib import sha256

import pytest

from serve_app.access.keys import read_keys
from serve_app.access.policy import KeysMode, Policy, policy_of
from serve_app.http.errors import NotAllowedError, UnauthorizedError, UnknownModelError

KEYS = read_keys({"team-a": b"sk-a", "team-b": b"sk-b-old\nsk-b-new\n"})
REQUIRED = Policy(KeysMode.REQUIRED, keys=KEYS)
OPTIONAL = Policy(KeysMode.OPTIONAL, keys=KEYS)


@pytest.mark.parametrize(
    ("token", "name"),
    [(b"sk-a", "team-a"), (b"sk-b-old", "team-b"), (b"sk-b-new", "team-b"), (b"sk-c", None), (b"", None)],
)
def test_a_key_has_the_name_of_its_entry(token, name):
    assert KEYS.name_of(token) == name


def test_the_digest_of_a_key_stands_for_it_and_is_no_key_itself():
    digest = f"sha256:{sha256(b'sk-a').hexdigest()}"
    keys = read_keys({"team-a": digest.encode()})
    assert keys.name_of(b"sk-a") == "team-a"
    assert keys.name_of(digest.encode()) is None
    assert keys.name_of(digest.removeprefix("sha256:").encode()) is None


def test_what_is_no_key_is_told_without_its_value_and_takes_no_other_with_it():
    keys = read_keys({"a": b"sk-a", "b": b" \n", "c": b"sha256:secret", "d/e": b"secret", "f": b"sk-a"})
    assert keys.name_of(b"sk-a") == "a"
    assert len(keys.complaints) == 4
    assert "secret" not in str(keys.complaints)
    assert "sk-a" not in str(keys.complaints)


def test_a_bad_line_takes_no_good_key_of_its_entry_with_it():
    keys = read_keys({"a": b"old-key\nSHA256:tooshort"})
    assert keys.name_of(b"old-key") == "a"
    assert keys.name_of(b"SHA256:tooshort") is None
    assert len(keys.complaints) == 1


def test_a_representation_shows_no_digest():
    assert sha256(b"sk-a").hexdigest()[:8] not in repr(REQUIRED)
    assert repr(sha256(b"sk-a").digest()) not in repr(REQUIRED)


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer sk-a"},
        {"authorization": "bearer  sk-a "},
        {"x-api-key": "sk-a"},
        # Proxies have passwords of their own in that header.
        {"authorization": "Basic eDp5", "x-api-key": "sk-a"},
    ],
)
def test_a_key_comes_in_either_header(headers):
    assert REQUIRED.caller_of(headers) == "team-a"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "sk-a"},
        {"authorization": "Bearer"},
        {"authorization": "Basic sk-a"},
        {"x-api-key": ""},
    ],
)
def test_without_a_key_only_a_required_one_is_missed(headers):
    with pytest.raises(UnauthorizedError, match="send a key"):
        REQUIRED.caller_of(headers)
    assert OPTIONAL.caller_of(headers) == ""


@pytest.mark.parametrize("policy", [REQUIRED, OPTIONAL])
@pytest.mark.parametrize("key", ["sk-", "sk-a ,", "sk-aa", "SK-A", "sk-ä", "\udcff"])
def test_a_wrong_key_is_refused_and_not_repeated(policy, key):
    with pytest.raises(UnauthorizedError) as refused:
        policy.caller_of({"authorization": f"Bearer {key}"})
    assert key not in str(refused.value)


def test_off_means_that_nobody_is_asked():
    assert Policy(KeysMode.OFF, keys=KEYS).caller_of({"authorization": "Bearer wrong"}) == ""


@pytest.mark.parametrize(
    ("caller", "allow", "expected"),
    [
        ("team-a", [], True),
        ("", [], True),
        ("team-a", ["team-a"], True),
        ("team-b", ["team-a"], False),
        ("", ["team-a"], False),
    ],
)
def test_a_list_lets_in_whom_it_names(caller, allow, expected):
    assert REQUIRED.allows(caller, allow) is expected


def test_a_key_that_may_not_ask_is_told_so_or_finds_no_model():
    with pytest.raises(NotAllowedError, match="'team-b' may not ask 'chat'"):
        REQUIRED.require("team-b", ["team-a"], "chat")
    with pytest.raises(UnknownModelError):
        Policy(KeysMode.REQUIRED, hides=True, keys=KEYS).require("team-b", ["team-a"], "chat")


@pytest.mark.parametrize("document", [[], None, {"keys": "sometimes"}])
def test_what_is_no_policy_is_refused(document):
    with pytest.raises(ValueError, match=r"sometimes|no JSON object"):
        policy_of(document, KEYS)
