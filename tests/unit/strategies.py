"""Hypothesis strategies for valid endpoints: any value that the API allows."""

from hypothesis import strategies as st

from endpoint_operator.api.rules import NAME_PATTERN
from endpoint_operator.api.types import parse_endpoint
from serve_app.contract import GATEWAY_APPLICATION, Task
from tests.harness.builders import manifest

names = st.from_regex(NAME_PATTERN, fullmatch=True).filter(lambda name: name != GATEWAY_APPLICATION)

# Quarters survive every way of writing a number down.
seconds = st.integers(4, 4 * 3600).map(lambda quarters: quarters / 4)
percents = st.integers(0, 400).map(lambda quarters: quarters / 4)

uris = st.sampled_from(
    ["hf://org/name", "file:///models/a", "pvc://claim/a/b", "package://models_inside", "file:///models/ü"]
)

parameters = {
    Task.TEXT_CLASSIFICATION: {"top_k": 3, "function_to_apply": "sigmoid"},
    Task.TOKEN_CLASSIFICATION: {"aggregation_strategy": "first"},
    Task.ZERO_SHOT_CLASSIFICATION: {"candidate_labels": ["a", "b"], "multi_label": True},
    Task.FEATURE_EXTRACTION: {"pooling": "cls", "normalize": False},
    Task.TEXT_RANKING: {"function_to_apply": "none"},
    Task.FILL_MASK: {"top_k": 2},
    Task.TEXT_GENERATION: {"temperature": 0.5, "do_sample": True},
    Task.TEXT2TEXT_GENERATION: {"prefix": "summarize: ", "num_beams": 2},
    Task.SUMMARIZATION: {"min_length": 10, "early_stopping": True},
    Task.TRANSLATION: {"src_lang": "eng_Latn", "tgt_lang": "fra_Latn"},
    Task.QUESTION_ANSWERING: {"doc_stride": 64, "handle_impossible_answer": True},
}


@st.composite
def models(draw):
    """Return a model section."""
    task = draw(st.sampled_from(Task))
    uri = draw(uris)
    return {
        "uri": uri,
        "task": task.value,
        "revision": draw(st.sampled_from(["", "main", "a" * 40])) if uri.startswith("hf://") else "",
        "tokenSecret": draw(st.sampled_from(["", "team-a"])) if uri.startswith("hf://") else "",
        "dtype": draw(st.sampled_from(["auto", "float32", "float16", "bfloat16", "int8"])),
        "parameters": draw(st.sampled_from([{}, parameters[task]])),
    }


@st.composite
def scalings(draw):
    """Return a scaling section; minReplicas is not above maxReplicas."""
    upper = draw(st.integers(1, 100))
    return {
        "minReplicas": draw(st.integers(0, upper)),
        "maxReplicas": upper,
        "maxReplicasPerNode": draw(st.integers(0, 100)),
        "targetOngoingRequests": draw(st.integers(1, 10_000)),
        "upscaleDelaySeconds": draw(seconds),
        "downscaleDelaySeconds": draw(seconds),
    }


@st.composite
def manifests(draw, names=names):
    """Return a manifest of an endpoint that fits into the `cpu` profile of builders.CLUSTER."""
    ongoing = draw(st.integers(1, 10_000))
    return manifest(
        draw(names),
        created=draw(st.sampled_from(["", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"])),
        model=draw(models()),
        resources={
            "cpus": draw(st.sampled_from([0.25, 1, 8])),
            "count": draw(st.sampled_from([0.25, 1])),
            "memory": draw(st.sampled_from(["512Mi", "2Gi", "4G", "16Gi"])),
        },
        scaling=draw(scalings()),
        batching={"maxBatchSize": draw(st.integers(1, min(ongoing, 1024)))},
        limits={
            "maxOngoingRequests": ongoing,
            "maxQueuedRequests": draw(st.integers(1, 100_000)),
            "requestTimeoutSeconds": draw(seconds),
            "truncateInput": draw(st.booleans()),
        },
        health={"periodSeconds": draw(seconds), "timeoutSeconds": draw(seconds)},
        logging={"mode": draw(st.sampled_from(["none", "metadata", "sampled"])), "percent": draw(percents)},
        suspend=draw(st.booleans()),
    )


def endpoints(names=names):
    """Return a strategy for one valid endpoint."""
    return manifests(names).map(parse_endpoint)


def endpoint_sets(max_size=4):
    """Return a strategy for lists of valid endpoints with different names."""
    return st.lists(endpoints(), max_size=max_size, unique_by=lambda endpoint: endpoint.name)
