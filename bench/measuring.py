"""Turn a plan into rows: one server after the other, each with one model at a time."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Final

import psutil
from rich.console import Console

from bench import in_process, load
from bench.rows import FLOAT32, IN_PROCESS, OPENAI, OURS, Plan, Row, find
from bench.samples import CLASSIFICATION, EMBEDDING, MODELS, RANKING
from bench.servers import (
    ARTICLE,
    MAX_BATCH,
    OURS_OPENAI,
    OURS_RANKING,
    PEER_SERVERS,
    Job,
    Machine,
    Running,
    Server,
    dtype_of,
    running,
    serve_in_float32,
)
from bench.servers import OURS as OURS_SERVER
from bench.texts import make_texts

TEXTS: Final = 512
WARM_UP_SECONDS: Final = 1.5
# Sorted together by the loop without a server: as many texts as there are clients, and all of them.
LOOPS: Final = ((1, 1), (16, 16), (64, 16), (64, 32), (TEXTS, 16), (TEXTS, 32))


@dataclass
class Bench:
    """The rows so far, and what could not be measured."""

    machine: Machine
    plans: Mapping[str, Plan]
    console: Console
    only: Sequence[str] = ()
    rows: list[Row] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Measure every model of the plan at float32, and ours at its own default if that is another."""
        for name, plan in self.plans.items():
            job = Job(MODELS[name](), FLOAT32, self.machine)
            self._ours(job, plan)
            self._loop(job, plan)
            for server in self._others(plan, job):
                with self.noting(f"{server.name} with {name}"):
                    self._closed_and_open(server, job, plan)

    def _others(self, plan: Plan, job: Job) -> Iterator[Server]:
        servers = [ARTICLE, *PEER_SERVERS]
        if plan.thorough:
            cores = {"BENCH_REPLICA_CPUS": str(self.machine.cores)}
            servers.insert(1, replace(ARTICLE, environment=cores, variant="all cores"))
        yield from (each for each in servers if self._wanted(each.name) and job.model.task in each.tasks)

    def _wanted(self, server: str) -> bool:
        return not self.only or server in self.only

    def noting(self, what: str) -> "_Noting":
        """Note that `what` could not be measured, if so, and go on."""
        return _Noting(self, what)

    def _ours(self, job: Job, plan: Plan) -> None:
        if not self._wanted(OURS):
            return
        by_default = replace(job, dtype="auto")
        noting = self.noting(f"ours with {job.model.name}")
        server = OURS_RANKING if job.model.task == RANKING else OURS_SERVER
        with noting, running(server, by_default, self.console) as service:
            chosen = dtype_of(service)
            self._loads(service, replace(job, dtype=chosen), plan, default_dtype=True)
            if chosen != FLOAT32:
                # Not beside the first as a second model: the others have one, too.
                self._loads(serve_in_float32(service, job), job, plan, default_dtype=False)

    def _closed_and_open(self, server: Server, job: Job, plan: Plan) -> None:
        with running(server, job, self.console) as service:
            # Their pipelines and auto classes choose the format of the weights, which is float32.
            self._loads(service, job, plan, default_dtype=True)

    def _loads(self, service: Running, job: Job, plan: Plan, *, default_dtype: bool) -> None:
        for texts in plan.texts:
            for clients in plan.clients:
                self._load(service, job, plan, _Kind(texts, clients, default_dtype=default_dtype))
                if service.server.name == OURS and job.model.task == EMBEDDING:
                    kind = _Kind(texts, clients, default_dtype=default_dtype, route=OPENAI)
                    self._load(replace(service, server=OURS_OPENAI), job, plan, kind)
            if service.server.variant:
                return
            for share in self._shares(service, plan, texts):
                self._load(service, job, plan, _Kind(texts, 0, share, default_dtype=default_dtype))
        if service.server.name == OURS and job.model.task == CLASSIFICATION:
            kind = _Kind(plan.texts[0], 1, default_dtype=default_dtype, route="gateway")
            self._load(service, job, plan, kind)

    def _shares(self, service: Running, plan: Plan, texts: str) -> tuple[float, ...]:
        """Ours under all open loads; the others with short texts where the plan is thorough."""
        ours = service.server.name == OURS
        return plan.shares if ours or (plan.thorough and texts == "short") else ()

    def _load(self, service: Running, job: Job, plan: Plan, kind: "_Kind") -> None:
        capacity = self._capacity(job, kind.texts)
        if not kind.clients and not capacity:
            return
        texts = make_texts(kind.texts, TEXTS)
        through_gateway = kind.route == "gateway"
        url = f"{service.base_url}/predict" if through_gateway else service.url
        bodies = service.bodies(texts)
        if through_gateway:
            bodies = [f'{{"model": "{service.job.model.name}", {body[1:]}' for body in bodies]
        rate = kind.share * capacity
        seconds = plan.seconds[kind.texts]
        with ServerCpu(service.process.pid) as cpu:
            report = load.measure(load.Load(url, kind.clients, rate, WARM_UP_SECONDS, seconds), bodies)
        self._note(
            Row(
                server=service.server.name,
                model=job.model.name,
                dtype=job.dtype,
                texts=kind.texts,
                load="closed" if kind.clients else "open",
                clients=kind.clients,
                share=kind.share,
                offered_rps=rate,
                route=kind.route,
                variant=service.server.variant,
                default_dtype=kind.default_dtype,
                server_cpu=cpu.cores,
                **asdict(report),
            )
        )

    def _capacity(self, job: Job, texts: str) -> float:
        ours = find(
            self.rows,
            server=OURS,
            model=job.model.name,
            dtype=job.dtype,
            texts=texts,
            load="closed",
            clients=64,
        )
        return ours.rps if ours else 0.0

    def _loop(self, job: Job, plan: Plan) -> None:
        """Measure the model without a server."""
        if not self._wanted(IN_PROCESS) or job.model.task == RANKING:
            return
        for texts in plan.texts:
            windows = [each for each in LOOPS if plan.thorough or each[0] < TEXTS]
            loops = [in_process.Loop(window, batch, plan.seconds[texts] / 2) for window, batch in windows]
            for loop, speed in zip(
                loops, in_process.measure(job, loops, make_texts(texts, TEXTS)), strict=True
            ):
                best = loop.batch == min(loop.window, MAX_BATCH)
                self._note(
                    Row(
                        IN_PROCESS, job.model.name, job.dtype, texts, "closed", loop.window,
                        speed.rps, speed.p50_ms, speed.p99_ms, 0,
                        variant="" if best and loop.window < TEXTS else f"batches of {loop.batch}",
                        default_dtype=True,
                    )
                )  # fmt: skip

    def _note(self, row: Row) -> None:
        self.rows.append(row)
        load_shown = f"{row.clients} clients" if row.clients else f"{row.offered_rps:.0f}/s offered"
        self.console.print(
            f"{row.server} {row.variant} {row.route} · {row.model} {row.dtype} · {row.texts} · {load_shown}: "
            f"{row.rps:.1f}/s, p50 {row.p50_ms:.1f} ms, p99 {row.p99_ms:.1f} ms, {row.failures} failures"
        )


@dataclass(frozen=True)
class _Kind:
    """One load of one server."""

    texts: str
    clients: int
    share: float = 0.0
    default_dtype: bool = True
    route: str = "direct"


class ServerCpu:
    """Measures the processor time of a process and all below it, in cores."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.cores = 0.0

    def __enter__(self) -> "ServerCpu":
        self._before, self._started = self._seconds(), time.monotonic()
        return self

    def __exit__(self, *error: object) -> None:
        after, elapsed = self._seconds(), time.monotonic() - self._started
        # A process that has come meanwhile has used next to nothing before.
        used = sum(seconds - self._before.get(pid, 0.0) for pid, seconds in after.items())
        self.cores = used / elapsed

    def _seconds(self) -> dict[int, float]:
        found = {}
        for each in (self._process, *self._process.children(recursive=True)):
            with suppress(psutil.Error):
                times = each.cpu_times()
                found[each.pid] = times.user + times.system
        return found


class _Noting:
    """Notes that a server could not be measured, and lets the others have their turn."""

    def __init__(self, bench: Bench, what: str) -> None:
        self._bench = bench
        self._what = what

    def __enter__(self) -> None:
        self._bench.console.print(f"[bold]{self._what}[/bold]")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, RuntimeError | OSError):
            return False
        self._bench.problems.append(f"{self._what}: {error}")
        self._bench.console.print(f"[red]{self._what} could not be measured:[/red] {error}", markup=True)
        return True
