"""The fork server: what forked workers have, what they must not share, and when none is forked."""

import os

import psutil
import pytest
import transformers

from serve_app.contract import FORK_WORKERS_VARIABLE
from tests.serve import tiny_models
from tests.serve.fork_node import node, wait_for


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    with node(tmp_path_factory.mktemp("node")) as here:
        here.start().end()
        yield here


def test_a_worker_finds_its_imports_done_and_nothing_running(here):
    worker = here.start_with_torch("--worker-id=abc", "last")
    worker.end()
    assert worker.forked
    assert worker.told["has_torch"]
    assert worker.told["threads"] == 1
    assert not worker.told["cuda"]


def test_a_worker_is_what_ray_started(here):
    worker = here.start("--worker-id=abc", "last", RAY_JOB_ID="07")
    worker.end()
    assert worker.forked
    assert worker.told["arguments"][1:] == ["--worker-id=abc", "last"]
    assert worker.told["job"] == "07"
    assert worker.told["folder"] == str(here.folder)
    assert worker.told["group"] == worker.told["pid"]
    assert worker.told["blas"] == os.environ.get("OPENBLAS_NUM_THREADS")


def test_no_two_workers_draw_the_same_numbers(here):
    workers = [here.start_with_torch() for _ in range(3)]
    for worker in workers:
        worker.end()
    for draws in zip(*(worker.told["numbers"] for worker in workers), strict=True):
        assert len(set(draws)) == len(workers)


def test_workers_with_settings_of_their_own_start_by_themselves(here):
    worker = here.start(TOKENIZERS_PARALLELISM="of-its-own")
    worker.end()
    assert not worker.forked
    assert not worker.told["has_torch"]


def test_the_switch_turns_it_off(here):
    worker = here.start(**{FORK_WORKERS_VARIABLE: "off"})
    worker.end()
    assert not worker.forked
    assert not worker.told["has_serve"]


def test_a_node_without_models_imports_no_torch(tmp_path):
    with node(tmp_path) as other:
        worker = other.start(**{FORK_WORKERS_VARIABLE: "serve"})
        worker.end()
        assert worker.forked
        assert worker.told["has_serve"]
        assert len(other.servers()) == 1
        assert "imported torch" not in other.log()


def test_where_the_models_modules_start_a_thread_no_worker_is_forked_from_them(tmp_path):
    """A module that Python imports at each start stands in for a library that starts a thread."""
    library = tmp_path / "library"
    library.mkdir()
    (library / "sitecustomize.py").write_text(
        "import sys, threading, time\n"
        "if 'serve_app.forkserver.server' in sys.orig_argv:\n"
        "    import importlib.abc\n"
        "    class Finder(importlib.abc.MetaPathFinder):\n"
        "        def find_spec(self, name, path, target=None):\n"
        "            if name == 'transformers.models.bert.modeling_bert':\n"
        "                threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
        "    sys.meta_path.insert(0, Finder())\n"
    )
    with node(tmp_path) as other:
        first = other.start(PYTHONPATH=str(library))
        first.end()
        wait_for(lambda: "workers must not be forked" in other.log())
        worker = other.start(PYTHONPATH=str(library))
        worker.end()
        assert worker.forked
        assert not worker.told["has_torch"]
        assert "the process with the models' modules has ended" in other.log()


def test_a_killed_server_is_replaced_and_ends_with_the_raylet(tmp_path):
    with node(tmp_path) as other:
        first = other.start()
        servers = [server for server in other.servers() if server.pid != first.told["pid"]]
        for server in servers:
            server.kill()
        psutil.wait_procs(servers, timeout=10)
        second = other.start()
        assert second.forked
        assert psutil.pid_exists(first.told["pid"])
        first.end()
        second.end()
    wait_for(lambda: not other.servers())


@pytest.fixture(scope="module")
def distilbert(tmp_path_factory):
    """A model of DistilBERT's size: 67 million weights."""
    folder = tmp_path_factory.mktemp("distilbert")
    transformers.DistilBertForSequenceClassification(transformers.DistilBertConfig()).save_pretrained(folder)
    tiny_models.tokenizer().save_pretrained(folder)
    return folder


def test_a_second_copy_of_a_model_shares_the_pages_of_its_weights(here, distilbert):
    weights = (distilbert / "model.safetensors").stat().st_size
    workers = []

    def added_by(*arguments: str) -> int:
        """Return by how much one more worker raises the proportional memory of all together."""
        before = _proportional(here, workers)
        workers.append(here.start_with_torch(*arguments))
        return _proportional(here, workers) - before

    try:
        added_by()
        empty = added_by()
        first = added_by(f"load={distilbert}")
        second = added_by(f"load={distilbert}")
    finally:
        for worker in workers:
            worker.end()
    # Pages that nobody has used yet do not count: a third of the weights are embeddings of words.
    assert first - empty > 0.6 * weights
    assert second - empty < 0.2 * weights, (first >> 20, second >> 20, empty >> 20)


def _proportional(here, workers) -> int:
    pids = {worker.told["pid"] for worker in workers} | {server.pid for server in here.servers()}
    return sum(psutil.Process(pid).memory_full_info().pss for pid in pids)
