"""One engine with one classifier: `engine.py NAME`; what to serve comes from the environment.

Protocol, one JSON object a line. In: `{"texts": [...], "batch": <texts in a batch>}`. Out, at first:
`{"seconds": <until it was ready>, "scores": <a row of probabilities for each text>}`, then for each further
line `{"ms": <milliseconds a text>}`. Neither has the import of torch in it, the latter no tokenizing either.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

FOLDER = Path(os.environ["BENCH_MODEL"])
DTYPE: Any = os.environ["BENCH_DTYPE"]
# torch and what is built on it read this themselves.
CORES = int(os.environ["OMP_NUM_THREADS"])


class Engine(NamedTuple):
    """A model that is ready to run; `run` returns logits, one row of shape (labels,) for each text."""

    prepare: Callable[[Sequence[str]], Any]
    run: Callable[[Any], Any]


def _padding(arrays: str) -> Callable[[Sequence[str]], Mapping[str, Any]]:
    """Return what makes token ids and a mask of shape (texts, longest), in torch's or NumPy's arrays."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    return lambda texts: dict(tokenizer(list(texts), padding=True, return_tensors=arrays))


def _loaded(dtype: str) -> Any:
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(FOLDER, dtype=dtype).eval()


def _transformers() -> Engine:
    model = _loaded(DTYPE)
    return Engine(_padding("pt"), lambda batch: model(**batch).logits)


def _compiled(frozen: bool) -> Engine:
    import torch
    import torch._inductor.config

    torch._inductor.config.freezing = frozen
    model = torch.compile(_loaded(DTYPE), dynamic=True)
    return Engine(_padding("pt"), lambda batch: model(**batch).logits)


def _export(path: Path) -> None:
    """Write the model as ONNX, for any number of texts of any length."""
    import torch

    example = _padding("pt")(["one text", "another text of more words"])
    sizes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    torch.onnx.export(
        _loaded("float32"), kwargs=example, f=str(path), dynamo=True, verbose=False,
        input_names=list(example), output_names=["logits"], dynamic_shapes=dict.fromkeys(example, sizes),
    )  # fmt: skip


def _onnxruntime() -> Engine:
    import onnxruntime
    from onnxruntime.quantization import quantize_dynamic

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = CORES
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        _export(path)
        if DTYPE == "int8":
            quantize_dynamic(path, path := path.with_name("int8.onnx"))
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return Engine(_padding("np"), lambda batch: session.run(None, batch)[0])


def _openvino() -> Engine:
    import openvino

    example = _padding("pt")(["one text", "another text of more words"])
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if DTYPE == "bfloat16" else "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": CORES,
    }
    converted = openvino.convert_model(_loaded("float32"), example_input=example)
    compiled = openvino.compile_model(converted, "CPU", settings)
    return Engine(_padding("np"), lambda batch: compiled(batch)[0])


def _ours() -> Engine:
    """Return the project's own code of the layers, which is in the project's own environment."""
    from serve_app.engine.base import InputLimit, Progress
    from serve_app.parameters import parse_parameters
    from serve_app.tasks.text_classification import TextClassification

    model = TextClassification(FOLDER, DTYPE)
    model.prepare_thread(exclusive=True)
    parameters = parse_parameters(model.task, {})
    limit = InputLimit(model.max_tokens, truncate=True)
    return Engine(
        lambda texts: [model.encode(text, parameters, limit)[0] for text in texts],
        lambda batch: model.forward(batch, Progress((), 0)),
    )


ENGINES: Mapping[str, Callable[[], Engine]] = {
    "transformers": _transformers,
    "torch.compile": partial(_compiled, frozen=False),
    "torch.compile, frozen": partial(_compiled, frozen=True),
    "ONNX Runtime": _onnxruntime,
    "OpenVINO": _openvino,
    "ours": _ours,
}


def _run(engine: Engine, asked: Mapping[str, Any]) -> tuple[float, list[Any]]:
    """Return milliseconds a text, and the logits."""
    texts, size = asked["texts"], asked["batch"]
    batches = [engine.prepare(texts[at : at + size]) for at in range(0, len(texts), size)]
    started = time.perf_counter()
    logits = [row for batch in batches for row in engine.run(batch)]
    return (time.perf_counter() - started) * 1000 / len(texts), logits


def main() -> None:
    """Do what standard input says."""
    # What engines print must not mix with the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    import torch

    with torch.inference_mode():
        asked = json.loads(sys.stdin.readline())
        started = time.perf_counter()
        engine = ENGINES[sys.argv[1]]()
        _, logits = _run(engine, asked)
        seconds = time.perf_counter() - started
        scores = [torch.as_tensor(row).float().softmax(-1).tolist() for row in logits]
        print(json.dumps({"seconds": seconds, "scores": scores}), file=answers, flush=True)
        for line in sys.stdin:
            milliseconds, _ = _run(engine, json.loads(line))
            print(json.dumps({"ms": milliseconds}), file=answers, flush=True)


if __name__ == "__main__":
    main()
