"""Ask a task's model as the engine does, and transformers as its documentation says."""

import asyncio
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from serve_app.contract import Task
from serve_app.engine.base import Input, InputLimit, Progress, TaskModel, texts_of
from serve_app.engine.batch_planner import BatchLimits
from serve_app.engine.continuous.batcher import ContinuousBatcher
from serve_app.engine.streams import Streams
from serve_app.parameters import parse_parameters

TEXTS = [
    "the goal was scored in london .",
    "ada wrote this great example , and the bad sports in paris ! this is a long text . politics is good .",
    "paris",
    "a bad goal , was ada in london ? the great example this is good !",
    "good politics .",
]
NEW_TOKENS = 5


class Waiting(Progress):
    """Of a batch whose outputs somebody waits for."""

    def tick(self) -> bool:
        return True


def predictions(
    model: TaskModel, task: Task, texts: Sequence[Input] = TEXTS, *, alone: bool = False, **parameters: Any
) -> list[dict[str, Any]]:
    """Return one prediction for each text, from batches of what may share one, or from texts alone."""
    parsed = parse_parameters(task, parameters)
    limit = InputLimit(model.max_tokens, truncate=True)
    encoded = [model.encode(text, parsed, limit) for text in texts]
    groups: dict[Any, list[Any]] = {}
    for sequence in (each for of_text in encoded for each in of_text):
        groups.setdefault(id(sequence) if alone else sequence.group, []).append(sequence)
    batches = list(groups.values())
    outputs = {
        id(sequence): output
        for batch, of_batch in zip(batches, outputs_of(model, batches), strict=True)
        for sequence, output in zip(batch, of_batch, strict=True)
    }
    return [
        model.decode(text, of_text, [outputs[id(each)] for each in of_text], parsed)
        for text, of_text in zip(texts, encoded, strict=True)
    ]


def outputs_of(model: TaskModel, batches: Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
    """Return the outputs of the batches, one after the other, as the engine computes them."""
    if model.steps is None:
        return [model.forward(batch, Waiting((), 0)) for batch in batches]

    async def in_steps() -> list[Sequence[Any]]:
        limits = BatchLimits(max_size=64, max_tokens=100_000, max_wait_seconds=0)
        batcher = ContinuousBatcher(model.steps, limits, Streams())
        try:
            return [await batcher.submit(batch) for batch in batches]
        finally:
            await batcher.close()

    return asyncio.run(in_steps())


def right_answers(auto_class: Any, task: Task, folder: Path, texts: Sequence[Input] = TEXTS) -> list[Any]:
    """Return what transformers' own float32 model answers, one text at a time."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = auto_class.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        return [_right_answer(model, tokenizer, task, text) for text in texts]


def _right_answer(model: Any, tokenizer: Any, task: Task, text: Input) -> Any:
    taken = inspect.signature(model.forward).parameters
    encoded = tokenizer(*texts_of(text), return_tensors="pt")
    inputs = {name: value for name, value in encoded.items() if name in taken}
    if getattr(model.config, "type_vocab_size", None) == 1:
        # The tokenizer of the tests numbers two texts, and theirs would not.
        inputs.pop("token_type_ids", None)
    if task is Task.TEXT_GENERATION:
        ids = {name: value for name, value in inputs.items() if name != "token_type_ids"}
        made = model.generate(
            **ids, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=tokenizer.pad_token_id
        )
        return tokenizer.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    if task is Task.TEXT2TEXT_GENERATION:
        ids = {name: value for name, value in inputs.items() if name != "token_type_ids"}
        made = model.generate(**ids, max_new_tokens=NEW_TOKENS, do_sample=False)
        return tokenizer.decode(made[0], skip_special_tokens=True)
    if task is Task.FEATURE_EXTRACTION and hasattr(transformers, f"{type(model).__name__[:-5]}EncoderModel"):
        # Such a decoder has nothing to start from.
        model = model.get_encoder()
    output = model(**inputs)
    if task is Task.QUESTION_ANSWERING:
        outside = torch.tensor([which != 1 for which in encoded.sequence_ids()])
        outside[0] = False
        logits = torch.cat([output.start_logits, output.end_logits]).masked_fill(outside, -10000.0)
        start, end = logits.softmax(-1).masked_fill(outside, 0.0)[:, 1:, None]
        return (start @ end.T).triu().tril(14).max()
    if task is Task.FEATURE_EXTRACTION:
        return output.last_hidden_state[0].mean(dim=0)
    scores = output.logits[0].softmax(-1)
    if task is Task.FILL_MASK:
        return scores[inputs["input_ids"][0] == tokenizer.mask_token_id]
    return scores
