"""Turn a plan into rows of generation: one server after the other, each in one number format at a time."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from bench.generation import static
from bench.generation.load import Load, measure, row_of
from bench.generation.prompts import LONG, SHORT, make_prompts
from bench.generation.rows import GenerationPlan, GenerationRow, of_ours
from bench.generation.servers import EQUAL, OURS, PEER_GENERATORS, TOKENS, Generator
from bench.measuring import Bench, ServerCpu
from bench.rows import IN_PROCESS
from bench.samples import GENERATION, chat
from bench.servers import Job, Running, dtype_of, running

PROMPTS: Final = 512
# So many streams of ours decide the rate of the open loop.
BASIS: Final = 16


@dataclass
class GenerationBench:
    """The rows so far; what could not be measured goes to `bench`, as what other rows lack."""

    bench: Bench
    plan: GenerationPlan
    rows: list[GenerationRow] = field(default_factory=list)

    def run(self) -> None:
        """Measure ours, the model without a server, and the peers, in all their number formats."""
        job = Job(chat(), "", self.bench.machine)
        if job.machine.device != "cpu":
            self.bench.problems.append("generation: it is measured on the processor only")
            return
        for dtype in self._dtypes(OURS):
            with self.bench.noting(f"generation: ours in {dtype}"):
                self._server(OURS, replace(job, dtype=dtype))
        for dtype in EQUAL if self._wanted(IN_PROCESS) and self.plan.batches else ():
            with self.bench.noting(f"generation: without a server in {dtype}"):
                for row in static.measure(
                    replace(job, dtype=dtype), self.plan.batches, self.plan.seconds / 2
                ):
                    self._note(row)
        for peer in PEER_GENERATORS:
            for dtype in self._dtypes(peer):
                with self.bench.noting(f"generation: {peer.server.name} {peer.server.variant} in {dtype}"):
                    self._server(peer, replace(job, dtype=dtype))

    def _dtypes(self, generator: Generator) -> list[str]:
        if not self._wanted(generator.server.name):
            return []
        return [dtype for dtype in generator.dtypes if self.plan.dtypes is None or dtype in self.plan.dtypes]

    def _wanted(self, server: str) -> bool:
        return not self.bench.only or server in self.bench.only

    def _server(self, generator: Generator, job: Job) -> None:
        with running(generator.server, job, self.bench.console) as service:
            if generator is OURS and (chosen := dtype_of(service)) != job.dtype:
                raise RuntimeError(f"it serves in {chosen}")
            for load in self._loads(service):
                lengths = LONG if load.rate else SHORT
                bodies = service.bodies(make_prompts(lengths, PROMPTS))
                with ServerCpu(service.process.pid) as cpu:
                    report = measure(load, bodies)
                row = row_of(generator.server.name, job.dtype, load, report)
                variant, at_once = generator.server.variant, generator.at_once
                self._note(replace(row, variant=variant, at_once=at_once, server_cpu=cpu.cores))

    def _loads(self, service: Running) -> Iterator[Load]:
        plain = Load(service.url, warm_up_seconds=self.plan.warm_up_seconds, seconds=self.plan.seconds)
        for streams in self.plan.streams:
            yield replace(plain, streams=streams)
        # All get the same: what ours does in the format that the peers have, too.
        basis = of_ours(self.rows, BASIS, EQUAL[0])
        if self.plan.share and basis:
            yield replace(plain, rate=self.plan.share * basis.tokens_per_s / TOKENS)

    def _note(self, row: GenerationRow) -> None:
        self.rows.append(row)
        self.bench.console.print(
            f"{row.named} · {GENERATION} {row.dtype} · {row.load}: {row.tokens_per_s:.1f} tokens/s, "
            f"first {row.first_p50_ms:.0f} ms, between {row.gap_p50_ms:.1f} ms, {row.failures} failures"
            + (f" ({row.problem})" if row.problem else ""),
            markup=False,
        )
