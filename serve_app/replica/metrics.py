"""What is counted of a model: its requests, its batches, the texts that it generates, and its start.

docs/metrics.md lists them. Labels have few values, whatever clients send.
"""

import os
from collections.abc import Mapping
from typing import Final

from serve_app.engine.batch_engine import BatchEngine
from serve_app.engine.continuous.figures import Finished
from serve_app.engine.records import BatchRecord, RequestRecord
from serve_app.http.errors import ServingError
from serve_app.protocols import CALLS
from serve_app.replica.busy_time import BusyTime
from serve_app.replica.tallies import Counter, Gauge, Histogram, Labels, Tally

# Environment variable of Ray's processes: "1" counts requests and tokens of each key, too.
PER_KEY_VARIABLE: Final = "MODEL_ENDPOINTS_METRICS_PER_KEY"

# "off" counts nothing; the benchmark of what counting costs sets it.
METRICS_VARIABLE: Final = "MODEL_ENDPOINTS_METRICS"

PREFIX: Final = "model_endpoints"
# What stands for all that has no label value of its own.
OTHER: Final = "other"
# Hugging Face's inference has no name in its path.
_INFERENCE: Final = "inference"
# More keys than this are counted together.
MOST_KEYS: Final = 100

# Seconds; models and machines differ by orders of magnitude.
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_FIRST_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_TOKEN_SECONDS: Final = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2)
_SEQUENCES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TOKENS: Final = (4, 16, 64, 256, 1024, 4096, 16384)


def metrics_of(engine: BatchEngine) -> "ModelMetrics | None":
    """Return what counts the work of `engine` from now on; None if the environment asks for none."""
    if os.environ.get(METRICS_VARIABLE) == "off":
        return None
    metrics = ModelMetrics(engine, per_key=counts_keys())
    engine.observers.requests.append(metrics.note_request)
    engine.observers.batches.append(metrics.note_batch)
    if engine.figures is not None:
        engine.figures.observers.append(metrics.note_generated)
    return metrics


def counts_keys() -> bool:
    """Return whether the environment asks for metrics of each key."""
    return os.environ.get(PER_KEY_VARIABLE) == "1"


class RequestCounter:
    """Requests by protocol, status and error code."""

    def __init__(self) -> None:
        self.tally = Counter(
            f"{PREFIX}_requests",
            "Requests that were answered or refused; code is that of the error.",
            *("protocol", "status", "code"),
        )
        self._codes = {"", *_codes_of(ServingError)}

    def add(self, verb: str, status: int, code: str) -> None:
        """Count one; what is not among the known protocols and codes is counted as `other`."""
        protocol = verb or _INFERENCE
        self.tally.add(
            1, protocol if verb in CALLS else OTHER, str(status), code if code in self._codes else OTHER
        )


class ModelMetrics:
    """The tallies of one replica, and the observers that add to them."""

    def __init__(self, engine: BatchEngine, *, per_key: bool) -> None:
        self._requests = RequestCounter()
        self._seconds = _seconds("request", "From the arrival of a request at the replica to its end.")
        self._queued = _seconds("queue", "How long a request waited for its first batch.")
        self._model = _seconds("model", "From the begin of a request's first batch to the end of its last.")
        self._input = Counter(f"{PREFIX}_input_tokens", "Tokens that were read.")
        self._output = Counter(f"{PREFIX}_output_tokens", "Tokens that were generated.")
        self._sequences = Histogram(f"{PREFIX}_batch_sequences", "Sequences of a batch.", _SEQUENCES)
        self._tokens = Histogram(f"{PREFIX}_batch_tokens", "Tokens that a batch has computed.", _TOKENS)
        self._failures = Counter(f"{PREFIX}_batch_failures", "Batches in which the model raised an error.")
        self._compute = Counter(f"{PREFIX}_compute_seconds", "Time in which at least one batch ran.")
        self._busy = BusyTime()
        self._keys = _KeyMetrics() if per_key else None
        self._generation = _GenerationMetrics(engine) if engine.figures is not None else None
        self.tallies: list[Tally] = [
            *(self._requests.tally, self._seconds, self._queued, self._model, self._input, self._output),
            *(self._sequences, self._tokens, self._failures, self._compute),
            *_start_gauges(engine),
        ]
        for part in (self._keys, self._generation):
            self.tallies += part.tallies if part is not None else []

    def note_request(self, record: RequestRecord) -> None:
        """Count a request that is over. The times are those of requests that the model has answered."""
        self._requests.add(record.verb, record.status, record.code)
        if record.status < 400 and record.model_began is not None:
            self._seconds.observe(record.seconds)
            self._queued.observe(record.queued_seconds)
            self._model.observe(record.model_seconds)
        if record.input_tokens:
            self._input.add(record.input_tokens)
        if record.output_tokens:
            self._output.add(record.output_tokens)
        if self._keys is not None:
            self._keys.note(record)

    def note_batch(self, record: BatchRecord) -> None:
        """Count a batch, or one step of the texts that are generated; of health checks, only the time."""
        if record.requests:
            self._sequences.observe(record.sequences)
            self._tokens.observe(record.tokens)
        self._compute.add(self._busy.add(record.began, record.seconds))
        if record.failed:
            self._failures.add(1)

    def note_generated(self, finished: Finished) -> None:
        """Count a text that was generated, of a model that is computed in steps."""
        if self._generation is not None:
            self._generation.note(finished)


class _KeyMetrics:
    """Requests and tokens by the name of the client's key."""

    def __init__(self) -> None:
        self._requests = Counter(f"{PREFIX}_key_requests", "Requests by key.", "key", "status")
        self._tokens = Counter(
            f"{PREFIX}_key_tokens", "Tokens read and generated by key.", "key", "direction"
        )
        self._names: set[str] = set()
        self.tallies: list[Tally] = [self._requests, self._tokens]

    def note(self, record: RequestRecord) -> None:
        if not record.caller:
            return
        if record.caller not in self._names and len(self._names) < MOST_KEYS:
            self._names.add(record.caller)
        name = record.caller if record.caller in self._names else OTHER
        self._requests.add(1, name, str(record.status))
        self._tokens.add(record.input_tokens, name, "input")
        self._tokens.add(record.output_tokens, name, "output")


class _GenerationMetrics:
    """What clients of a model that is computed in steps wait for, and how full it is."""

    def __init__(self, engine: BatchEngine) -> None:
        self._cached = Counter(
            f"{PREFIX}_cached_input_tokens", "Tokens of prompts that another prompt had computed."
        )
        self._first = Histogram(
            f"{PREFIX}_time_to_first_token_seconds",
            "From the arrival of a text that is generated to its first token.",
            _FIRST_SECONDS,
        )
        self._between = Histogram(
            f"{PREFIX}_time_per_output_token_seconds",
            "Between two tokens of a text, on the average of the text.",
            _TOKEN_SECONDS,
        )
        load = Gauge(
            f"{PREFIX}_generation_load",
            "How full the batch is with what runs and waits; above 1, requests wait.",
            read=lambda: {(): engine.load or 0.0},
        )
        self.tallies: list[Tally] = [self._cached, self._first, self._between, load]

    def note(self, finished: Finished) -> None:
        if finished.cached_tokens:
            self._cached.add(finished.cached_tokens)
        if finished.first_token_seconds is not None:
            self._first.observe(finished.first_token_seconds)
        if finished.seconds_per_token is not None:
            self._between.observe(finished.seconds_per_token)


def _start_gauges(engine: BatchEngine) -> list[Tally]:
    """Return what is known of the model since its start: how it is served, and how long the start took."""
    proof = engine.model.description.get("proof", {})
    labels = (engine.args.task.value, str(proof.get("step", "")), str(len(proof.get("because", ()))))
    phases: Mapping[Labels, float] = {
        (name.removesuffix("_seconds"),): seconds
        for name, seconds in engine.cold_start.items()
        if name != "total_seconds"
    }
    info = Gauge(
        f"{PREFIX}_model_info",
        "1; step is how the model is served, and given_up the number of faster steps with wrong answers.",
        *("task", "step", "given_up"),
        read=lambda: {labels: 1.0},
    )
    return [
        info,
        Gauge(f"{PREFIX}_start_seconds", "How long the replica's start took.", "phase", read=lambda: phases),
    ]


def _seconds(part: str, text: str) -> Histogram:
    return Histogram(f"{PREFIX}_{part}_seconds", text, _SECONDS)


def _codes_of(error: type[ServingError]) -> set[str]:
    """Return the codes of a kind of error and of all kinds of it."""
    return {error.code}.union(*map(_codes_of, error.__subclasses__()))
