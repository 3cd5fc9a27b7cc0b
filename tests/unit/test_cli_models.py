"""`modelendpoint predict` and `bench` against a double of the service."""

import io
import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

import pytest
from rich.console import Console

from endpoint_operator.cli.answer_table import answer_table, cell
from endpoint_operator.cli.bench import bar
from serve_app.contract import MAX_TEXTS_PER_REQUEST
from tests.unit.http_double import serving
from tests.unit.test_cli import modelendpoint


class Service(BaseHTTPRequestHandler):
    """Imitates the service; the server has `answer` and `metadata`, and notes the requests of predict."""

    def do_GET(self):
        models = [{"name": "a", "task": "fill-mask"}]
        self._answer(200, json.dumps({"name": "a", "models": models, **self.server.metadata}).encode())

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, json.loads(body)))
        self._answer(*self.server.answer)

    def _answer(self, status, answer):
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments):
        """Keep quiet."""


@contextmanager
def running_service(status, answer, inputs=(), **parameters):
    requests = []
    metadata = {"inputs": [{"name": name} for name in inputs], "parameters": parameters} if inputs else {}
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    with serving(Service, requests=requests, answer=(status, body), metadata=metadata) as url:
        yield url, requests


def predict(url, *arguments):
    return modelendpoint("predict", "a", "text", "--url", url, *arguments)


def test_predict_prints_one_line_for_each_text():
    answer = {"model": "a", "predictions": [{"label": "gut"}, {"label": "schön"}]}
    with running_service(200, answer) as (url, requests):
        outcome = modelendpoint(
            "predict", "a", "one", "two", "--url", f"{url}/", "--parameters", '{"top_k": 2}'
        )
    assert outcome == (0, '{"label": "gut"}\n{"label": "schön"}\n', "")
    assert requests == [("/v2/models/a/predict", {"texts": ["one", "two"], "parameters": {"top_k": 2}})]


def test_predict_says_what_the_service_says():
    with running_service(404, {"error": "no model is named 'a'", "code": "unknown_model"}) as (url, _):
        assert predict(url) == (1, "", "404: no model is named 'a'\n")


@pytest.mark.parametrize("answer", [b"Bad Gateway", b"[]", b'{"detail": "other"}'])
def test_predict_shows_an_error_that_is_not_ours_as_it_is(answer):
    with running_service(502, answer) as (url, _):
        assert predict(url) == (1, "", f"502: {answer.decode()}\n")


@pytest.mark.parametrize("answer", [b"<html>another program</html>", b"[]", b'{"result": 1}', b"1"])
def test_predict_says_that_another_program_answers_there(answer):
    with running_service(200, answer) as (url, _):
        code, output, complaint = predict(url)
    assert (code, output) == (1, "")
    assert url in complaint
    assert len(complaint.splitlines()) == 1


def test_predict_says_that_nobody_answers():
    with running_service(200, {}) as (url, _):
        pass
    code, output, complaint = predict(url)
    assert (code, output) == (1, "")
    assert complaint.startswith(f"{url} does not answer: ")
    assert len(complaint.splitlines()) == 1


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9", "nonsense"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_predict_asks_this_machine_without_a_proxy_of_the_environment(monkeypatch, proxy, host):
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.setenv(name, proxy)
    with running_service(200, {"predictions": [{"label": "GOOD"}]}) as (url, _):
        assert predict(url.replace("127.0.0.1", host)) == (0, '{"label": "GOOD"}\n', "")


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "nonsense"])
def test_predict_says_that_it_cannot_use_a_proxy(monkeypatch, proxy):
    monkeypatch.setenv("http_proxy", proxy)
    code, _, complaint = predict("http://192.0.2.1")
    assert code == 1
    assert complaint.startswith("http://192.0.2.1 does not answer: ")
    assert len(complaint.splitlines()) == 1


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://localhost", "http://[::1", "http://a b"])
def test_predict_refuses_an_address_that_is_none(url):
    code, _, complaint = predict(url)
    assert code == 1
    assert len(complaint.splitlines()) == 1


@pytest.mark.parametrize("parameters", ["{", "nope", "[1]", "1", '{"temperature": NaN}'])
def test_predict_takes_only_a_json_object_as_parameters(parameters):
    with running_service(422, {"error": "the service was asked", "code": "x"}) as (url, _):
        outcome = predict(url, "--parameters", parameters)
    assert outcome == (1, "", f"--parameters: got {parameters!r}; must be KEY=VALUE or a JSON object\n")


def asked(*arguments, inputs=("text",), answer=None, stdin=None):
    """Run predict against a model with these inputs; return exit code, complaint and the bodies it sent."""
    with running_service(200, answer or {"model": "a", "label": "x"}, inputs) as (url, requests):
        code, _, complaint = modelendpoint("predict", "a", *arguments, "--url", url, stdin=stdin)
    return code, complaint, [body for _, body in requests]


def texts_of(*arguments, **options):
    code, complaint, [body] = asked(*arguments, answer={"predictions": []}, **options)
    assert (code, complaint) == (0, "")
    return body["texts"]


def test_predict_takes_lines_of_standard_input_among_texts():
    assert texts_of("one", "-", stdin="two\n\nthree\n") == ["one", "two", "three"]


def test_predict_takes_lines_of_a_file(tmp_path):
    (tmp_path / "texts").write_text('first\n \n{"text": "no JSON here"}\n')
    assert texts_of("--file", tmp_path / "texts") == ["first", '{"text": "no JSON here"}']
    assert texts_of("--file", "-", stdin="a\n") == ["a"]


def test_predict_takes_json_lines_of_texts_and_objects(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text('"first\\nline"\n\n{"text": "second"}\n{"question": "Who?", "context": "Ada."}\n')
    pair = {"question": "Who?", "context": "Ada."}
    assert texts_of("--file", path) == ["first\nline", {"text": "second"}, pair]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [("{", "is no JSON: "), ("1", "got '1'; must be a text or an object"), ('{"text": 1}', "got ")],
)
def test_predict_names_the_line_that_is_wrong(tmp_path, line, sentence):
    path = tmp_path / "texts.jsonl"
    path.write_text(f'"good"\n{line}\n')
    code, complaint, bodies = asked("--file", path)
    assert (code, bodies) == (1, [])
    assert complaint.startswith(f"{path}:2: {sentence}")


def test_predict_sends_many_texts_in_several_requests():
    texts = "\n".join(["word"] * (MAX_TEXTS_PER_REQUEST + 1))
    _, _, bodies = asked("-", stdin=texts, answer={"predictions": []})
    assert [len(body["texts"]) for body in bodies] == [MAX_TEXTS_PER_REQUEST, 1]
    _, _, bodies = asked("-", stdin="\n".join(["x" * 600_000] * 4), answer={"predictions": []})
    assert [len(body["texts"]) for body in bodies] == [1, 1, 1, 1]


PAIR = ("question", "context")


@pytest.mark.parametrize(
    ("arguments", "pairs"),
    [
        (["--pair", "Who?", "Ada.", "Where?", "Here."], [("Who?", "Ada."), ("Where?", "Here.")]),
        (["--question", "Who?", "Ada.", "Bob."], [("Who?", "Ada."), ("Who?", "Bob.")]),
        (["--context", "Ada.", "Who?"], [("Who?", "Ada.")]),
        (["--context", "Ada.", "--question", "Who?"], [("Who?", "Ada.")]),
    ],
)
def test_predict_sends_pairs_by_the_names_of_the_inputs(arguments, pairs):
    expected = [{"question": one, "context": other} for one, other in pairs]
    assert texts_of(*arguments, inputs=PAIR) == expected


@pytest.mark.parametrize(
    ("arguments", "inputs", "sentence"),
    [
        (["--pair", "a", "b"], ["text"], "a is not known to take pairs of texts: it takes text"),
        (["--pair", "a", "b"], [], "a is not known to take pairs of texts: at rest, it does not say"),
        (["--pair", "a"], PAIR, "--pair: got 1 texts; must be an even number of them"),
        (["--query", "a", "b"], PAIR, "--query: a has no input of that name; it has question and context"),
        (["--question", "a"], PAIR, "give --question and --context, or one of them and TEXTs"),
        (["--question", "a", "--context", "b", "c"], PAIR, "give --question and --context, or one of them"),
    ],
)
def test_predict_says_what_is_wrong_with_pairs(arguments, inputs, sentence):
    code, complaint, bodies = asked(*arguments, inputs=inputs)
    assert (code, bodies) == (1, [])
    assert complaint.startswith(sentence)


def test_predict_without_a_text_is_a_mistake_in_the_usage():
    assert asked()[0] == 2


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        (["top_k=2"], {"top_k": 2}),
        (["normalize=true", '{"pooling": "cls"}'], {"normalize": True, "pooling": "cls"}),
        (
            ["candidate_labels=sports", "candidate_labels=politics"],
            {"candidate_labels": ["sports", "politics"]},
        ),
        (['candidate_labels=["a","b"]'], {"candidate_labels": ["a", "b"]}),
        (["prefix=a=b: "], {"prefix": "a=b: "}),
        (['prefix="1"'], {"prefix": "1"}),
        (["prefix="], {"prefix": ""}),
    ],
)
def test_predict_takes_parameters_by_name(options, parameters):
    words = [word for option in options for word in ("--parameters", option)]
    [body] = asked("text", *words, answer={"predictions": []})[2]
    assert body["parameters"] == parameters


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.98765, "0.9877"),
        ("[red]", "[red]"),
        ([0.5] * 384, "0.5000, 0.5000, 0.5000, 0.5000, … (384 in all)"),
        (["a", "b"], "a, b"),
        (
            [{"word": "Ada", "score": 0.5}, {"word": "London", "score": 1}],
            "word Ada  score 0.5000\nword London  score 1",
        ),
    ],
)
def test_a_cell_is_a_few_words(value, words):
    assert cell(value) == words


def test_the_table_has_a_row_for_each_question_and_takes_nothing_for_markup():
    printed = io.StringIO()
    asked = ["a [b]x[/b]", {"query": "q", "text": "t"}]
    Console(file=printed, width=60).print(answer_table(asked, [{"label": "[red]"}, {"label": "B"}]))
    title, first, second = printed.getvalue().splitlines()
    assert title.split() == ["TEXT", "LABEL"]
    assert first.split() == ["a", "[b]x[/b]", "[red]"]
    assert second.split() == ["q", "|", "t", "B"]


def bench(url, *arguments):
    return modelendpoint("bench", "a", "--url", url, "--seconds", "1", *arguments)


def test_bench_measures_each_number_of_clients():
    with running_service(200, {"label": "x"}, ["text"], task="text-classification") as (url, requests):
        code, output, said = bench(url, "--clients", "1,3", "--json")
    assert code == 0
    assert said == "1 client, 0.5 s\n3 clients, 0.5 s\n"
    levels = json.loads(output)["levels"]
    assert [level["clients"] for level in levels] == [1, 3]
    for level in levels:
        assert level["requests"] > 0
        assert level["requests_per_second"] > 0
        assert 0 < level["p50_ms"] <= level["p90_ms"] <= level["p99_ms"]
        assert (level["errors"], level["problems"]) == (0, {})
    assert {body["text"] for _, body in requests} == {"I love this product"}


def test_bench_shows_a_table_with_bars():
    with running_service(200, {"label": "x"}, ["text"], task="text-classification") as (url, _):
        code, output, _ = bench(url, "--clients", "2")
    assert code == 0
    head, row, legend = output.splitlines()
    assert head.split() == ["CLIENTS", "REQ/S", "P50", "MS", "P90", "MS", "P99", "MS", "ERRORS"]
    assert row.split()[0] == "2"
    assert "█" in row
    assert "P90" in legend


def test_bench_sends_the_texts_it_is_given_in_turn():
    with running_service(200, {"label": "x"}) as (url, requests):
        bench(url, "--clients", "1", "--text", "one", "--text", "two", "--parameters", "top_k=1")
    assert [body for _, body in requests][:2] == [
        {"text": "one", "parameters": {"top_k": 1}},
        {"text": "two", "parameters": {"top_k": 1}},
    ]


def test_bench_of_a_model_at_rest_takes_the_example_of_its_task():
    with running_service(200, {"fills": []}) as (url, requests):
        assert bench(url, "--clients", "1")[0] == 0
    assert "[MASK]" in requests[0][1]["text"]


def test_bench_says_why_the_first_request_failed_and_sends_no_other():
    with running_service(422, {"error": "too long", "code": "x"}) as (url, requests):
        assert bench(url, "--text", "a") == (1, "", "422: too long\n")
    assert len(requests) == 1


@pytest.mark.parametrize("clients", ["0", "65", "a", "", "1,", "1,2,3,4,5,6,7", "-1"])
def test_bench_bounds_its_clients(clients):
    code, _, complaint = bench("http://127.0.0.1:9", f"--clients={clients}")
    assert code == 2
    assert "from 1 to 64" in " ".join(complaint.replace("│", " ").split())


def test_a_bar_has_a_block_for_each_value():
    assert bar([3, 6, 12], 12, "abc") == "aaabbbcccccc"
    assert bar([float("nan")], 1, "abc") == ""
    assert bar([0], 0, "abc") == ""
