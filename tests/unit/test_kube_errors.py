"""What a failed request to the API server becomes: an exception by its status, and a sentence."""

import pytest
from kubernetes.aio.client import ApiException

from endpoint_operator.kube.errors import ConflictError, InvalidError, KubeError, NotFoundError, api_errors


def raised(error):
    with pytest.raises(KubeError) as caught, api_errors("read it"):
        raise error
    return caught.value


def answer(status, body="", **headers):
    error = ApiException(status=status, reason="Reason")
    error.body, error.headers = body, headers
    return error


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (404, NotFoundError),
        (409, ConflictError),
        (422, InvalidError),
        (403, InvalidError),
        (400, InvalidError),
        (429, KubeError),
        (500, KubeError),
    ],
)
def test_the_status_decides_the_kind_of_error(status, kind):
    error = raised(answer(status, '{"message": "the words of the API server"}'))
    assert type(error) is kind
    assert str(error) == f"cannot read it: {status}: the words of the API server"


def test_a_kind_that_is_not_installed_is_said():
    assert "its custom resource definition is not installed" in str(raised(answer(404, "404 page not found")))


def test_an_answer_without_a_status_object_is_shown_as_it_is():
    assert str(raised(answer(502, "<html>"))) == "cannot read it: 502: Reason <html>"


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("Wed, 21 Oct 2026 07:28:00 GMT", 0.0)])
def test_the_wait_that_the_api_server_asks_for_is_kept(header, seconds):
    assert raised(answer(429, **{"Retry-After": header})).retry_after == seconds


@pytest.mark.parametrize(
    ("error", "cause"), [(TimeoutError(), "no answer in time"), (OSError("no route"), "no route")]
)
def test_an_api_server_that_does_not_answer_is_said(error, cause):
    assert str(raised(error)) == f"cannot read it: the cluster cannot be reached: {cause}"
