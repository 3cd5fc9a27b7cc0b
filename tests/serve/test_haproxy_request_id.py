"""The id of a request as the proxy hands it on and answers with it."""

import re

import pytest

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def ids_of(proxy, *given, path="/predict", **headers):
    """Return the ids in the answer to a request with these ones."""
    pairs = [("x-request-id", value) for value in given]
    answer = proxy.post(path, content=b'{"model": "a"}', headers=[*pairs, *headers.items()])
    return answer.headers.get_list("x-request-id")


@pytest.mark.parametrize("given", ["a", "req-1_2.B", "x" * 128])
def test_an_answer_has_the_clients_id(proxy, given):
    assert ids_of(proxy, given) == [given]


@pytest.mark.parametrize(
    "given", [[], [""], ["x" * 129], ["a b"], [b"\xff\xfe"], ["one, two"], ["one", "two"], ["a;b"], ['"']]
)
def test_any_other_is_replaced(proxy, given):
    [answered] = ids_of(proxy, *given)
    assert UUID.fullmatch(answered)


@pytest.mark.parametrize(
    ("path", "wanted"), [("/v2/models/idle/predict", "200"), ("/predict", "503 text/plain")]
)
def test_answers_of_the_gateway_and_of_the_proxy_have_it_too(proxy, path, wanted):
    assert ids_of(proxy, "mine", path=path, **{"x-wanted": wanted}) == ["mine"]
