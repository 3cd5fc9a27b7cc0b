"""Hundreds of texts of mixed length, as transformers' pipeline answers them one by one."""

import asyncio

import pytest
import torch
import transformers

from bench.texts import make_texts
from serve_app.contract import MAX_TEXTS_PER_REQUEST, ModelArgs, Task, UserConfig
from serve_app.engine.batch_engine import BatchEngine
from serve_app.tasks import task_class
from tests.serve.service import MODELS

COUNT = 400
TOLERANCE = 1e-4
MINILM_TOKENS = 256


@pytest.fixture(scope="module")
def texts():
    return make_texts("mixed", COUNT)


def answers(task: Task, name: str, texts: list[str], **parameters) -> list[dict]:
    """Return the engine's answers to requests of several texts that are inside at the same time."""

    async def ask() -> list[list[dict]]:
        folder = MODELS / name
        model = task_class(task)(folder, "float32")
        engine = BatchEngine(ModelArgs(name=name, uri=f"file://{folder}", task=task), model, UserConfig())
        starts = range(0, len(texts), MAX_TEXTS_PER_REQUEST)
        requests = [texts[start : start + MAX_TEXTS_PER_REQUEST] for start in starts]
        try:
            return await asyncio.gather(*(engine.predict(request, parameters) for request in requests))
        finally:
            await engine.close()

    return [prediction for of_request in asyncio.run(ask()) for prediction in of_request]


def test_labels_equal_the_pipelines(texts):
    classify = transformers.pipeline("text-classification", model=str(MODELS / "sentiment"), top_k=None)
    expected = classify(texts)
    got = answers(Task.TEXT_CLASSIFICATION, "sentiment", texts, top_k=len(expected[0]))
    for answer, wanted in zip(got, expected, strict=True):
        scores = {item["label"]: item["score"] for item in wanted}
        assert {item["label"]: item["score"] for item in answer["top"]} == pytest.approx(
            scores, abs=TOLERANCE
        )


def test_embeddings_equal_the_pipelines_token_vectors(texts):
    extract = transformers.pipeline("feature-extraction", model=str(MODELS / "minilm"), return_tensors=True)
    # The authors of the model limit texts to 256 tokens; the pipeline does not know that.
    short = [text for text in texts if len(extract.tokenizer(text).input_ids) <= MINILM_TOKENS]
    assert len(short) > COUNT // 2
    got = answers(Task.FEATURE_EXTRACTION, "minilm", short)
    for answer, tokens in zip(got, extract(short), strict=True):
        expected = torch.nn.functional.normalize(tokens[0].mean(dim=0), dim=-1)
        assert answer["embedding"] == pytest.approx(expected.tolist(), abs=TOLERANCE)
