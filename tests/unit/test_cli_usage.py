"""`modelendpoint usage`: its lines, for people and for programs."""

import json
from http.server import BaseHTTPRequestHandler

import pytest

from endpoint_operator.cli import cluster
from endpoint_operator.cli.usage import HEADER, usage_rows
from tests.harness.builders import manifest
from tests.unit.http_double import serving
from tests.unit.test_cli import modelendpoint

USAGE = {
    "requests": 12,
    "inputTokens": 34,
    "outputTokens": 56,
    "computeSeconds": 7.25,
    "replicaSeconds": 100,
    "idleShare": 0.9275,
    "memoryShare": 0.125,
    "cost": 0.0125,
    "since": "2026-01-01T00:00:00Z",
    "until": "2026-01-01T00:02:00Z",
}


def stored(name="a", **usage):
    return manifest(name, resources={"profile": "cpu"}) | ({"status": {"usage": usage}} if usage else {})


def cells(endpoint):
    [row] = usage_rows([endpoint])
    return dict(zip(HEADER, row.cells, strict=True))


def test_a_line_tells_what_the_status_says():
    assert cells(stored(**USAGE)) == {
        "NAME": "a",
        "PROFILE": "cpu",
        "REQUESTS": "12",
        "TOKENS IN": "34",
        "TOKENS OUT": "56",
        "COMPUTE S": "7.2",
        "REPLICA S": "100",
        "IDLE": "93%",
        "MEMORY": "12%",
        "COST": "0.0125",
        "SINCE": "2026-01-01T00:00:00Z",
    }


def test_what_is_not_known_is_a_dash():
    assert set(list(cells(stored()).values())[2:]) == {"-"}
    unknown = {"cost", "idleShare", "memoryShare"}
    told = cells(stored(**{name: value for name, value in USAGE.items() if name not in unknown}))
    assert (told["COST"], told["IDLE"], told["MEMORY"], told["REQUESTS"]) == ("-", "-", "-", "12")


def test_a_program_gets_the_fields_of_the_status():
    [row] = usage_rows([stored(**USAGE)])
    assert row.to_json() == {"name": "a", "runtime": "", "profile": "cpu", "usage": USAGE}
    [row] = usage_rows([stored()])
    assert row.to_json()["usage"] is None


@pytest.fixture
def there(monkeypatch):
    """A cluster with two endpoints in its namespace."""

    class Cluster:
        namespace = "models"

        async def __aenter__(self):
            return self

        async def __aexit__(self, *error):
            return None

        async def endpoints(self):
            return [stored("b"), stored("a", **USAGE)]

    monkeypatch.setattr(cluster, "connect_reader", lambda context, namespace: Cluster())


def test_all_endpoints_are_shown_by_name(there):
    code, output, complaint = modelendpoint("usage")
    assert (code, complaint) == (0, "")
    assert [line.split()[0] for line in output.splitlines()] == ["NAME", "a", "b"]


def test_those_that_are_named_are_shown_and_a_missing_one_is_told(there):
    code, output, complaint = modelendpoint("usage", "b", "c", "-o", "json")
    assert code == 1
    assert [each["name"] for each in json.loads(output)["endpoints"]] == ["b"]
    assert complaint == "namespace 'models' has no ModelEndpoint 'c'\n"


class Service(BaseHTTPRequestHandler):
    """Imitates the gateway of a service without a cluster; the server has its `answer`."""

    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("authorization")))
        status, document = self.server.answer
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        """Keep quiet."""


MINUTES = [
    {"begin": 1_767_225_600, "requests": 2, "compute_seconds": 1.5, "replica_seconds": 60.0},
    {"begin": 1_767_225_660, "requests": 1, "input_tokens": 7, "output_tokens": 3, "replica_seconds": 40.0},
]
REPORT = {
    "now": 1_767_225_720,
    "models": {"b": {"until": 1_767_225_660, "minutes": MINUTES}, "a": {"until": 0, "minutes": []}},
}


@pytest.fixture
def service(monkeypatch):
    """A function that runs the command against a service with this answer, which notes what it is asked."""

    def run(status, document, *arguments):
        with serving(Service, answer=(status, document), asked=run.asked) as url:
            return modelendpoint("usage", "--url", url, *arguments)

    run.asked = []
    monkeypatch.setenv("MODEL_ENDPOINTS_KEY", "sk-a")
    return run


def test_a_service_without_a_cluster_is_asked_by_its_address(service):
    code, output, complaint = service(200, REPORT)
    assert (code, complaint) == (0, "")
    head, one, other = output.splitlines()
    assert head.split() == " ".join(HEADER).split()
    assert one.split() == ["a", *["-"] * 10]
    assert other.split() == [
        *("b", "-", "3", "7", "3", "1.5", "100", "98%", "-", "-"),
        "2026-01-01T00:00:00Z",
    ]
    assert service.asked == [("/v2/usage", "Bearer sk-a")]


def test_a_program_gets_the_same_of_it_as_of_a_cluster(service):
    code, output, _ = service(200, REPORT, "b", "-o", "json")
    [only] = json.loads(output)["endpoints"]
    assert code == 0
    assert only == {
        "name": "b",
        "runtime": "",
        "profile": "",
        "usage": {
            "requests": 3,
            "inputTokens": 7,
            "outputTokens": 3,
            "computeSeconds": 1.5,
            "replicaSeconds": 100,
            "idleShare": 0.985,
            "since": "2026-01-01T00:00:00Z",
            "until": "2026-01-01T00:02:00Z",
        },
    }


def test_a_model_that_the_service_does_not_know_is_told(service):
    code, _, complaint = service(200, REPORT, "c")
    assert code == 1
    assert complaint.startswith("http://127.0.0.1:")
    assert complaint.endswith(" knows of no use of a ModelEndpoint 'c'\n")


def test_a_service_of_a_cluster_does_not_tell_and_the_way_to_it_is_said(service):
    code, _, complaint = service(404, {"error": "there is nothing at /v2/usage", "code": "unknown_path"})
    assert code == 1
    assert "leave --url out" in complaint
    assert len(complaint.splitlines()) == 1


@pytest.mark.parametrize(
    ("status", "document", "said"),
    [
        (401, {"error": "send a key"}, "401: send a key"),
        (200, {"models": []}, "is no model service"),
        (200, {}, "is no model service"),
    ],
)
def test_what_goes_wrong_is_one_sentence(service, status, document, said):
    code, output, complaint = service(status, document)
    assert (code, output) == (1, "")
    assert said in complaint
    assert len(complaint.splitlines()) == 1


def test_a_service_and_a_cluster_are_not_asked_at_once(service):
    code, _, complaint = service(200, REPORT, "--namespace", "models")
    assert (code, "--url" in complaint) == (1, True)
    assert not service.asked
