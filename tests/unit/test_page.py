"""The gateway's page in a real browser, on models of which none has weights."""

import asyncio
import json
from urllib.parse import urlsplit

import pytest
from starlette.testclient import TestClient

from serve_app.contract import ModelArgs, Task
from serve_app.engine.batch_engine import BatchEngine
from serve_app.gateway.application import gateway_application
from serve_app.gateway.browser_page import prefers_html
from serve_app.gateway.model_index import ModelIndex
from serve_app.gateway.public_reason import NOT_LOADED
from serve_app.gateway.relay import Relay
from serve_app.gateway.visible_models import VisibleModels
from serve_app.http.errors import Reply, ServingError
from serve_app.http.shapes import error_reply
from serve_app.protocols import CALLS, METADATA
from tests.harness.asgi import served
from tests.harness.browser import browsing
from tests.unit.fake_model import FakeModel, FakeRanker, UserConfig
from tests.unit.test_access_front import KEYS, access_folder
from tests.unit.test_model_index import FAILED, FakeServe, application

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
MARKUP = "<img/src=x/onerror=document.title='broken'>"


def entry(task, *arguments, **options):
    config = {"args": {"name": "?", "uri": "file:///models/it", "task": str(task)}}
    return {**application(*arguments, **options), "deployed_app_config": config}


def states():
    return FakeServe(
        sentiment=entry(Task.TEXT_CLASSIFICATION),
        resting=entry(Task.FILL_MASK, "RUNNING", 0),
        mistaken=entry(Task.ZERO_SHOT_CLASSIFICATION, "DEPLOY_FAILED", 0, deployment_message=FAILED),
        **{MARKUP: entry(MARKUP, "DEPLOYING", 0, message=MARKUP)},
    )


class Handle:
    """Imitates Serve's handle of a replica: the engine answers here."""

    def __init__(self, task=Task.TEXT_CLASSIFICATION, model=FakeModel):
        args = ModelArgs(name="sentiment", uri="file:///models/it", task=task)
        self.engine = BatchEngine(args, model(), UserConfig())
        self.call = self

    def remote(self, verb, body, headers):
        return asyncio.ensure_future(self._reply(verb, body, headers))

    async def _reply(self, verb, body, headers):
        try:
            reply = await CALLS[verb](self.engine, body, headers)
            if verb == METADATA:
                inputs = [{"name": name} for name in self.engine.model.input_names]
                return Reply(
                    json.dumps(json.loads(reply.body) | {"inputs": inputs}).encode(), reply.content_type
                )
            return reply
        except ServingError as error:
            return error_reply("", error)


def gateway(serve, handle=None):
    index = ModelIndex(serve)
    return gateway_application(index, Relay(index, lambda name: handle))


@pytest.fixture(scope="module")
def url():
    with served(gateway(states(), Handle())) as url:
        yield url


@pytest.fixture
def page(url):
    with browsing() as page:
        page.open(f"{url}/")
        page.wait("document.querySelectorAll('#models a').length === 4")
        page.origin = urlsplit(url).netloc
        yield page
        assert {urlsplit(request).netloc for request in page.requests} == {page.origin}


def test_a_key_is_asked_for_and_sent_and_shown_to_nobody(tmp_path):
    index = ModelIndex(states())
    visible = VisibleModels(index, access_folder(tmp_path))
    app = gateway_application(index, Relay(index, lambda name: Handle()), visible)
    with served(app) as url, browsing() as page:
        page.open(f"{url}/")
        page.wait("document.getElementById('key-form')?.hidden === false")
        page.wait_for_text("send a key", "#trouble")
        page.tab_to("#key")
        page.write(KEYS["a"])
        page.press("Enter")
        page.wait("document.querySelectorAll('#models a').length === 4")
        page.wait_for_text("Bearer $KEY", "#command")
        assert KEYS["a"] not in page.value("document.body.innerText")
        assert all(KEYS["a"] not in request for request in page.requests)


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        (BROWSER, True),
        ("text/html", True),
        ("text/html;q=0.5, application/json;q=0.4", True),
        ("text/html;q=0.5, application/json", False),
        ("text/html;q=much", False),
        ("application/json, text/html", False),
        ("*/*", False),
        ("application/json", False),
        ("", False),
    ],
)
def test_only_who_prefers_html_gets_the_page(accept, html):
    answer = TestClient(gateway(states())).get("/", headers={"accept": accept})
    assert answer.headers["vary"] == "Accept"
    assert answer.headers["content-type"] == ("text/html; charset=utf-8" if html else "application/json")
    assert html or answer.json()["name"] == "model-endpoints"


def test_who_says_nothing_gets_json():
    assert not prefers_html({})


def test_the_files_of_the_page_are_there_and_nothing_else_is():
    client = TestClient(gateway(states()))
    policy = client.get("/page/page.js").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for name in ("nope.js", "%2e%2e", "%2e%2e%2fapplication.py", ""):
        assert client.get(f"/page/{name}").status_code == 404


def test_a_text_is_sent_and_its_answer_read_by_keyboard_alone(page):
    page.tab_to("#models a[href='#model=sentiment']")
    page.press("Enter")
    page.wait_for_text("ready", "#state")
    page.tab_to("#field-text")
    page.write("it's good")
    page.tab_to("#settings summary")
    page.press("Enter")
    page.tab_to("#field-top_k")
    page.write("2")
    page.tab_to("#send")
    page.press("Enter")
    page.wait_for_text("Answered in", "#progress")
    page.wait_for_text("it's", "#answer")
    command = page.value("document.querySelector('#command').textContent")
    assert """-d '{"text":"it'\\''s good","parameters":{"top_k":2}}'""" in command
    page.tab_to("#raw-details summary")
    page.press("Enter")
    page.wait_for_text('"model": "sentiment"', "#raw")
    page.tab_to("#copy")
    page.press("Enter")
    page.wait("document.querySelector('#copied').textContent")
    assert page.complaints == []


def test_lines_are_texts_of_their_own(page):
    page.tab_to("#field-text")
    page.write("one\ntwo words\n")
    page.tab_to("#several")
    page.press("Space")
    page.press("Tab", "Shift")
    page.press("Enter", "Control")
    page.wait("document.querySelectorAll('.answer-of').length === 2")
    assert page.complaints == []


def test_what_looks_like_markup_stays_text(page):
    page.tab_to("#field-text")
    page.write(f"{MARKUP} and more")
    page.press("Enter", "Control")
    page.wait_for_text(MARKUP, "#answer")
    page.wait_for_text(MARKUP, "#models")
    assert page.value("document.title") == "Model Endpoints"
    assert page.value("document.querySelectorAll('img').length") == 0
    assert page.complaints == []


def test_a_model_that_does_not_answer_says_why(page):
    page.open(f"http://{page.origin}/#model=mistaken")
    page.wait_for_text("failed: ", "#state")
    page.wait_for_text(NOT_LOADED, "#state")
    page.wait("document.querySelector('#lists #field-candidate_labels') !== null")
    page.tab_to("#models a[href='#model=resting']")
    page.press("Enter")
    page.wait_for_text("at rest: ", "#state")
    page.wait("document.querySelector('#parameters #field-top_k').placeholder === '5'")
    assert page.complaints == []


def test_a_value_that_may_not_be_sent_is_told_beside_its_field(page):
    page.press("Tab")
    page.tab_to("#send")
    page.press("Enter")
    page.wait_for_text("Write the text here.", "#mistake-text")
    assert page.value("document.activeElement.id") == "field-text"
    page.write("good")
    page.value("document.querySelector('#settings').open = true")
    page.tab_to("#field-top_k")
    page.write("0")
    page.tab_to("#send")
    page.press("Enter")
    page.wait_for_text("must be a whole number from 1 to 1000", "#mistake-top_k")
    assert page.value("document.activeElement.id") == "field-top_k"


def test_an_error_is_shown_with_its_sentence(page):
    page.tab_to("#field-text")
    page.write("word " * 11)
    page.press("Enter", "Control")
    page.wait_for_text("422: the text has 11 tokens and this endpoint takes 10", "#failure")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_window_has_all_without_a_horizontal_scroll(page, scheme):
    page.size(360, 640)
    page.scheme(scheme)
    page.value("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    page.tab_to("#field-text")
    page.write("w" * 200)
    page.wait("document.documentElement.scrollWidth <= 360")
    assert (
        page.value("getComputedStyle(document.body).backgroundColor")
        == {
            "light": "rgb(251, 251, 250)",
            "dark": "rgb(22, 24, 27)",
        }[scheme]
    )


def test_what_has_changed_is_seen_without_a_reload():
    serve = FakeServe(sentiment=entry(Task.TEXT_CLASSIFICATION, "DEPLOYING", 0))
    with served(gateway(serve, Handle())) as url, browsing() as page:
        page.open(f"{url}/")
        page.wait_for_text("loading", "#state")
        serve.applications = {"sentiment": entry(Task.TEXT_CLASSIFICATION)}
        page.wait_for_text("ready", "#state")


def test_a_model_of_pairs_has_a_field_for_each_text_and_ranks_lines():
    serve = FakeServe(sentiment=entry(Task.TEXT_RANKING))
    with served(gateway(serve, Handle(Task.TEXT_RANKING, FakeRanker))) as url, browsing() as page:
        page.open(f"{url}/")
        page.wait("document.querySelector('#field-query') !== null")
        page.tab_to("#field-query")
        page.write("good day")
        page.press("Tab")
        page.write("a good day\na bad one")
        page.press("Enter", "Control")
        page.wait_for_text("score\n6", "#answer")
        page.press("Tab")
        page.press("Space")
        page.tab_to("#send")
        page.press("Enter")
        page.wait("document.querySelectorAll('.answer-of').length === 2")
        command = page.value("document.querySelector('#command').textContent")
        assert """{"query":"good day","texts":["a good day","a bad one"]}""" in command
        assert page.complaints == []
