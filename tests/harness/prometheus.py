"""A real Prometheus for as long as a block lasts, and what is asked of it."""

import json
import re
import time
from contextlib import contextmanager

import httpx
import yaml

from endpoint_operator.local.ports import free_port
from hack.toolchain.debian_programs import debian_program
from tests.harness.processes import running

START_SECONDS = 60
# Labels of alerts that say what is wrong.
OF_FAULTS = ("reason", "error_code", "code")
# Ray reports every 10 seconds, and a rate needs two of its reports.
RATE_INTERVAL = "1m"


class Prometheus:
    """A server that scrapes."""

    def __init__(self, url, jobs):
        self._jobs = set(jobs)
        self._http = httpx.Client(base_url=url, timeout=30, trust_env=False)

    def query(self, expression):
        """Return what an instant query finds: a list of series, each with its labels and its value."""
        answer = self._http.get("/api/v1/query", params={"query": expression})
        document = answer.json()
        assert document["status"] == "success", f"{expression}: {document.get('error')}"
        return document["data"]["result"]

    def value(self, expression):
        """Return the value of the only series that is found."""
        [series] = self.query(expression)
        return float(series["value"][1])

    def targets(self):
        """Return the targets that are scraped, with their health and the last error.

        Prometheus knows those of each job some seconds after its start.
        """
        deadline = time.monotonic() + START_SECONDS
        while True:
            found = self._http.get("/api/v1/targets").json()["data"]["activeTargets"]
            missing = self._jobs - {target["scrapePool"] for target in found}
            if not missing:
                return found
            assert time.monotonic() < deadline, f"there is no target of {missing}"
            time.sleep(0.2)

    def is_ready(self):
        try:
            return self._http.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def scraping(folder, configs, seconds=5):
    """Run Prometheus with the scrape configs; it keeps its data in `folder`, and asks every few seconds."""
    config = folder / "prometheus.yaml"
    settings = {"scrape_interval": f"{seconds}s", "scrape_timeout": f"{seconds}s"}
    config.write_text(yaml.safe_dump({"global": settings, "scrape_configs": configs}))
    address = f"127.0.0.1:{free_port()}"
    command = [debian_program("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={folder}/data"]
    command.append(f"--web.listen-address={address}")
    server = Prometheus(f"http://{address}", [each["job_name"] for each in configs])
    with running("prometheus", command, folder / "prometheus.log") as program:
        deadline = time.monotonic() + START_SECONDS
        while not server.is_ready():
            assert not program.ended(), program.output()
            assert time.monotonic() < deadline, program.output()
            time.sleep(0.2)
        yield server


def dashboard_expressions(dashboard, namespace):
    """Return every expression of the dashboard's JSON, with its variables filled in, by panel and legend."""
    found = {}
    panels = json.loads(dashboard)["panels"]
    for panel in [*panels, *(inner for row in panels for inner in row.get("panels", []))]:
        for target in panel.get("targets", []):
            found[f"{panel['title']}: {target['legendFormat']}"] = filled(target["expr"], namespace)
    return found


def filled(expression, namespace):
    """Return an expression with values for Grafana's variables."""
    values = {"namespace": namespace, "model": ".*", "__rate_interval": RATE_INTERVAL}
    return re.sub(r"\$(\w+)", lambda found: values[found[1]], expression)


def alert_selectors(rules):
    """Return each selector of the alerts by the alert's name and its number.

    Without the labels that say what is wrong: where nothing is, no series has their values.
    """
    return {
        f"{rule['alert']}: {number}": selector
        for group in rules["spec"]["groups"]
        for rule in group["rules"]
        for number, selector in enumerate(_selectors(rule["expr"]))
    }


def _selectors(expression):
    for metric, inside in re.findall(r"(\w+)\{([^}]*)\}", expression):
        matchers = re.findall(r'(\w+)(=~|!~|!=|=)("[^"]*")', inside)
        kept = ["".join(each) for each in matchers if each[0] not in OF_FAULTS]
        yield f"{metric}{{{', '.join(kept)}}}"


def empty(prometheus, expressions):
    """Return those of the expressions that find nothing, or nothing but NaN, by their names."""
    return {name: each for name, each in expressions.items() if not _numbers(prometheus.query(each))}


def _numbers(found):
    return [series for series in found if series["value"][1] != "NaN"]
