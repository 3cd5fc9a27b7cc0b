"""Start one server with one model, wait until it answers, stop it to its last process."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import httpx
import psutil
import yaml
from rich.console import Console

from bench.environments import PEERS, python_of
from bench.processes import replicas_of
from bench.rows import FLOAT32, OPENAI
from bench.samples import CLASSIFICATION, EMBEDDING, RANKING, BenchModel
from endpoint_operator.local.ports import free_port

START_SECONDS: Final = 180.0
# Ray's own drain of replicas that take HTTP themselves is the longest.
STOP_SECONDS: Final = 90.0
# Of the peers that batch; the article's service has its own 16 and ours the endpoint's default.
MAX_BATCH: Final = 32
# Folder of our endpoints, below that of the server.
MANIFESTS: Final = "manifests"

Body = Callable[[str, str], Mapping[str, Any]]


@dataclass(frozen=True)
class Machine:
    """What the servers may use."""

    cores: int
    device: str


@dataclass(frozen=True)
class Job:
    """One model in one number format."""

    model: BenchModel
    dtype: str
    machine: Machine


@dataclass(frozen=True)
class Server:
    """How a server is started and asked; `command` gets the job, its port and a folder to write in."""

    name: str
    command: Callable[[Job, int, Path, Console], Sequence[str]]
    path: str
    body: Body
    tasks: tuple[str, ...] = (CLASSIFICATION,)
    # What it sets besides the model: the article's service says nothing of cores.
    environment: Mapping[str, str] | None = None
    variant: str = ""


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    server: Server
    job: Job
    base_url: str
    process: "subprocess.Popen[bytes]"
    folder: Path

    @property
    def url(self) -> str:
        """Where its model takes texts."""
        return self.base_url + self.server.path.format(name=self.job.model.name)

    def bodies(self, texts: Sequence[str]) -> list[str]:
        """Return the request bodies for `texts`."""
        return [json.dumps(self.server.body(self.job.model.name, text)) for text in texts]

    def wait(self) -> None:
        """Wait until its model answers; raise RuntimeError if it does not come to that."""
        wait_for_answer(self.url, self.bodies(["ready"])[0], self.process, self.folder / "log")


def _one_text(model: str, text: str) -> Mapping[str, Any]:
    return {"text": text}


def _peer(name: str) -> Callable[[Job, int, Path, Console], Sequence[str]]:
    def command(job: Job, port: int, folder: Path, console: Console) -> Sequence[str]:
        return [str(python_of(PEERS / f"{name}.txt", console)), str(PEERS / f"{name}_server.py")]

    return command


def _bentoml(job: Job, port: int, folder: Path, console: Console) -> Sequence[str]:
    tool = python_of(PEERS / "bentoml.txt", console).with_name("bentoml")
    return [
        str(tool), "serve", "bentoml_server:Service", "--working-dir", str(PEERS),
        "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip


def _mosec(job: Job, port: int, folder: Path, console: Console) -> Sequence[str]:
    options = ["--address", "127.0.0.1", "--port", str(port), "--timeout", "120000", "--log-level", "warning"]
    return [*_peer("mosec")(job, port, folder, console), *options]


def _infinity(engine: str) -> Callable[[Job, int, Path, Console], Sequence[str]]:
    """Return the command of infinity-emb with an engine, and what its documentation says for each."""

    def command(job: Job, port: int, folder: Path, console: Console) -> Sequence[str]:
        tool = str(python_of(PEERS / "infinity.txt", console).with_name("infinity_emb"))
        begin, model = [tool], str(job.model.folder)
        if engine != "torch":
            # optimum-onnx finds a file by its name only, and infinity gives it the path: here they are one.
            # What infinity optimizes it keeps in the hub's cache, by the folder's name.
            where = f"--chdir={_exported(job, folder, console)}"
            begin, model = ["env", where, f"HF_HUB_CACHE={folder / 'hub'}", tool], "."
        return [
            *begin, "v2", "--model-id", model, "--served-model-name", job.model.name,
            "--engine", engine, "--device", job.machine.device, "--dtype", job.dtype,
            "--no-bettertransformer", "--batch-size", str(MAX_BATCH), "--log-level", "error",
            "--host", "127.0.0.1", "--port", str(port),
        ]  # fmt: skip

    return command


def _exported(job: Job, folder: Path, console: Console) -> Path:
    """Return a folder with the model in ONNX's format, written by optimum as infinity's pages say."""
    target = folder / "onnx"
    tool = python_of(PEERS / "infinity.txt", console).with_name("optimum-cli")
    task = "text-classification" if job.model.task == RANKING else "feature-extraction"
    # infinity does not know the outputs of sentence-transformers' models, which a folder may be.
    options = ["--library", "transformers", "--task", task]
    command = [str(tool), "export", "onnx", "--model", str(job.model.folder), *options, str(target)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return target


def _article(job: Job, port: int, folder: Path, console: Console) -> Sequence[str]:
    return [sys.executable, str(PEERS / "article_server.py")]


def _ours(job: Job, port: int, folder: Path, console: Console) -> Sequence[str]:
    manifests = folder / MANIFESTS
    manifests.mkdir()
    write_manifest(manifests, job.model.name, job)
    return run_command(manifests, port, job.model.folder.parent)


def serve_in_float32(ours: Running, job: Job) -> Running:
    """Change our running endpoint, and return when what it was before has left."""
    before = replicas_of(psutil.Process(ours.process.pid), job.model.name)
    write_manifest(ours.folder / MANIFESTS, job.model.name, job)
    _, staying = psutil.wait_procs(before, START_SECONDS)
    changed = replace(ours, job=job)
    changed.wait()
    if staying or dtype_of(changed) != FLOAT32:
        raise RuntimeError(f"{job.model.name} did not change to {FLOAT32} in {START_SECONDS:.0f} s")
    return changed


def dtype_of(ours: Running) -> str:
    """Return the number format that our model says it has."""
    address = f"{ours.base_url}/v2/models/{ours.job.model.name}"
    facts = httpx.get(address, timeout=30, trust_env=False).raise_for_status().json()["parameters"]
    return str(facts["dtype"])


def run_command(manifests: Path, port: int, models: Path) -> list[str]:
    """Return the command that serves the manifests as `modelendpoint run` does."""
    command = [sys.executable, "-m", "endpoint_operator.cli.main", "run", str(manifests)]
    return [*command, "--port", str(port), "--grpc-port", str(free_port()), "--models", str(models)]


def write_manifest(folder: Path, name: str, job: Job, replicas: int = 1) -> None:
    """Write the endpoint `name`: all cores or one accelerator a replica, everything else by default."""
    on_cuda = job.machine.device == "cuda"
    resources = {"profile": "gpu", "count": 1} if on_cuda else {"cpus": job.machine.cores}
    document = {
        "apiVersion": "serving.modelendpoint.dev/v1alpha1",
        "kind": "ModelEndpoint",
        "metadata": {"name": name},
        "spec": {
            "model": {
                "uri": f"file:///models/{job.model.folder.name}",
                "task": job.model.task,
                "dtype": job.dtype,
            },
            "resources": {"memory": job.model.memory, **resources},
            "scaling": {"minReplicas": replicas, "maxReplicas": replicas},
            "limits": {"truncateInput": True, **job.model.limits},
        },
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")


def _named_text(model: str, text: str) -> Mapping[str, Any]:
    return {"model": "sentiment", "text": text}


def _list_of_texts(model: str, text: str) -> Mapping[str, Any]:
    return {"texts": [text]}


def _input(model: str, text: str) -> Mapping[str, Any]:
    return {"model": model, "input": [text], "encoding_format": "base64"}


def _documents(model: str, text: str) -> Mapping[str, Any]:
    return {"model": model, "query": QUERY, "documents": [text]}


def _instances(model: str, text: str) -> Mapping[str, Any]:
    return {"instances": [text]}


ANY_TASK: Final = (CLASSIFICATION, EMBEDDING)
# Of rankers; each text is one document for it.
QUERY: Final = "which room was clean and quiet"
ARTICLE: Final = Server("article", _article, "/predict", _named_text)
OURS: Final = Server("ours", _ours, "/v2/models/{name}/predict", _one_text, ANY_TASK)
OURS_RANKING: Final = replace(OURS, path="/v1/rerank", body=_documents, tasks=(RANKING,))
OURS_OPENAI: Final = replace(OURS, path=OPENAI, body=_input, tasks=(EMBEDDING,))
PEER_SERVERS: Final = (
    Server("fastapi", _peer("fastapi"), "/predict", _one_text),
    Server("litserve", _peer("litserve"), "/predict", _one_text, ANY_TASK),
    Server("bentoml", _bentoml, "/predict", _list_of_texts, ANY_TASK),
    Server("mosec", _mosec, "/inference", _one_text, ANY_TASK),
    Server("kserve", _peer("kserve"), "/v1/models/bench:predict", _instances, ANY_TASK),
    Server("infinity", _infinity("torch"), "/embeddings", _input, (EMBEDDING,)),
    Server("infinity-onnx", _infinity("optimum"), "/embeddings", _input, (EMBEDDING,)),
    Server("infinity", _infinity("torch"), "/rerank", _documents, (RANKING,)),
    Server("infinity-onnx", _infinity("optimum"), "/rerank", _documents, (RANKING,)),
)


@contextmanager
def running(server: Server, job: Job, console: Console) -> Iterator[Running]:
    """Run a server until the end of the block; raises RuntimeError if it does not come to answer."""
    with TemporaryDirectory(prefix="bench-") as name:
        folder, port = Path(name), free_port()
        command = server.command(job, port, folder, console)
        variables = {**environment(job, port), **(server.environment or {})}
        with process(command, variables, folder / "log") as started:
            service = Running(server, job, f"http://127.0.0.1:{port}", started, folder)
            service.wait()
            yield service


def environment(job: Job, port: int) -> dict[str, str]:
    """Return the variables by which a server learns what to serve."""
    return {
        "BENCH_MODEL": str(job.model.folder),
        "BENCH_TASK": job.model.task,
        "BENCH_DTYPE": job.dtype,
        "BENCH_DEVICE": job.machine.device,
        "BENCH_PORT": str(port),
        "BENCH_MAX_BATCH": str(MAX_BATCH),
        "INFINITY_ANONYMOUS_USAGE_STATS": "0",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


@contextmanager
def process(
    command: Sequence[str], variables: Mapping[str, str], log: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a command in a session of its own; interrupt it at the end, and kill what does not stop."""
    with log.open("wb") as output:
        started = subprocess.Popen(
            command, env=os.environ | variables, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield started
    finally:
        started.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            started.wait(STOP_SECONDS)
        _end_group(started)


def _end_group(started: "subprocess.Popen[bytes]") -> None:
    """Kill what is left of the session that `process` made."""
    try:
        os.killpg(started.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    started.wait()


def wait_for_answer(
    url: str,
    body: str,
    started: "subprocess.Popen[bytes]",
    log: Path,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Wait until the URL answers with 200."""
    deadline = time.monotonic() + START_SECONDS
    with httpx.Client(timeout=START_SECONDS, trust_env=False) as http:
        while time.monotonic() < deadline and started.poll() is None:
            try:
                own = {"content-type": "application/json", **(headers or {})}
                answer = http.post(url, content=body, headers=own)
                if answer.status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
    raise RuntimeError(f"{url} did not answer; the server said:\n{log.read_text(errors='replace')[-2000:]}")
