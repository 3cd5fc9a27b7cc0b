"""Load a model and prove it before it serves: right answers, or a refusal.

    transformers' own float32 model, one text at a time ──> the right answers
    what will be served, alone and in batches ──> compared with them
      │ raises, or differs
      └──> the next step down: float32 for a shorter dtype, transformers' layers for ours, torch's kernels
           for oneDNN's, and in each of them batches of equal lengths for mixed ones; after the last step,
           ModelLoadError

What was proved is kept on the node, so that the next replica of the model goes straight to the same step.
"""

import gc
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import torch

from serve_app.contract import Dtype
from serve_app.decoders.steps import DecoderSteps
from serve_app.encoders.onednn import has_kernels, use_kernels
from serve_app.encoders.shared_weights import share_weights
from serve_app.encoders.unpad import can_unpad, script, unpad
from serve_app.engine.base import ModelLoadError
from serve_app.loading import kept_proofs
from serve_app.loading.dtypes import FLOAT32, INT8, quantize, resolve_dtype, torch_dtype
from serve_app.loading.folder import count_parameters, read_json
from serve_app.loading.own_weights import own_weights
from serve_app.loading.proof import Difference, compare
from serve_app.loading.rehearsal import ProvedTask, Rehearsal
from serve_app.loading.transformers_model import TransformersModel, load, this_device
from serve_app.text import words

# From this number of parameters on, a model answers fewer texts.
_LARGE: Final = 100_000_000
# Above it, there is no float32 model to compare a shorter dtype with: it would take more than 4 GiB. The
# model is loaded in the shorter dtype only, and must answer the same alone and in batches.
_TOO_LARGE: Final = 2**30
# Serve sends this logger's records to the replica's log.
logger = logging.getLogger("ray.serve")


class Layers(StrEnum):
    """Whose layers compute, and whose kernels the linear ones call."""

    OWN = "own layers"
    STEPS = "transformers' layers in steps"
    ONEDNN = "transformers' layers with oneDNN"
    PLAIN = "transformers' layers"


@dataclass(frozen=True)
class Step:
    """One way to serve a model. `max_tokens` is there if the model takes fewer than it states."""

    dtype: str
    layers: Layers
    equal_lengths: bool = False
    max_tokens: int | None = None

    def __str__(self) -> str:
        return f"{self.dtype}, {self.layers}, {'equal' if self.equal_lengths else 'mixed'} lengths"


@dataclass(frozen=True)
class Proof:
    """The step at which a model is served, and why no step above it was taken."""

    step: Step
    reasons: tuple[str, ...]
    difference: Difference
    # The dtype of transformers' model whose answers were the right ones.
    compared_with: str
    # Of the comparison, without loading; 0 if another replica has proved the model.
    seconds: float = 0.0

    @property
    def description(self) -> dict[str, Any]:
        """The proof's members in the model's metadata."""
        return {
            "step": str(self.step),
            "because": list(self.reasons),
            "compared_with": self.compared_with,
            "texts": self.difference.texts,
            "greatest_difference": self.difference.greatest,
        }


def prepare(folder: Path, model_folder: Path, task: ProvedTask, dtype: Dtype) -> Proof:
    """Load the model in `model_folder`, which is `folder` or below it, and let `task` use it, proved.

    Raises ModelLoadError if the folder holds no model for the task, or one that does not answer right.
    """
    device = this_device()
    quantized = "quantization_config" in read_json(model_folder / "config.json")
    wanted = resolve_dtype(dtype, device, compared=task.compared and not quantized)
    if wanted == INT8 and device.type != "cpu":
        raise ModelLoadError("spec.model.dtype: int8 runs on processors only; use bfloat16 or float16")
    if wanted == INT8 and quantized:
        raise ModelLoadError("spec.model.dtype: int8 is not for weights that are quantized already; use auto")
    prover = _Prover(model_folder, task, wanted, quantized)
    digest = kept_proofs.digest_of(folder, task.task, dtype, device)
    kept = _from_document(kept_proofs.read(digest))
    if kept is not None:
        prover.serve(kept.step)
        return kept
    proof = prover.prove()
    kept_proofs.keep(digest, asdict(proof))
    for reason in proof.reasons:
        logger.warning("%s: not served in %s", model_folder, reason)
    logger.info("%s is served in %s", model_folder, proof.step)
    return proof


def _from_document(document: dict[str, Any] | None) -> Proof | None:
    if document is None:
        return None
    stated, difference = document["step"], Difference(**document["difference"])
    step = Step(**{**stated, "layers": Layers(stated["layers"])})
    return Proof(step, tuple(document["reasons"]), difference, document["compared_with"])


class _Prover:
    """Builds the steps of one model, and compares each with the right answers."""

    def __init__(self, folder: Path, task: ProvedTask, wanted: str, quantized: bool) -> None:
        self._folder = folder
        self._task = task
        self._wanted = wanted
        self._quantized = quantized
        self._parameters = count_parameters(folder)
        too_large = self._parameters > _TOO_LARGE and wanted not in (FLOAT32, INT8)
        # Without, the right answers are those of the wanted dtype alone.
        self._compared_with = wanted if too_large or quantized else FLOAT32
        # transformers' own model, until its layers are replaced.
        self._plain: TransformersModel | None = None
        # Whether texts of different lengths in a batch change each other's answers, in transformers' layers.
        self._mixes = False
        self._reasons: list[str] = []
        self._loading_seconds = 0.0

    def prove(self) -> Proof:
        """Return the first step whose answers are right; raise ModelLoadError if there is none."""
        started = time.monotonic()
        rehearsal, expected = self._right_answers()
        for step in list(self._ladder(rehearsal)):
            try:
                proof = self._tried(step, rehearsal, expected)
            except Exception as error:
                logger.info("%s: %s", self._folder, step, exc_info=True)
                # Clients read it in the metadata, and where the folder is does not concern them.
                self._reasons.append(f"{step}: {words(error).replace(str(self._folder), 'the folder')}")
                continue
            if proof is not None:
                return replace(proof, seconds=time.monotonic() - started - self._loading_seconds)
        reasons = "; ".join(self._reasons[-2:])
        raise ModelLoadError(f"{self._folder} cannot be served with right answers: {reasons}")

    def serve(self, step: Step) -> TransformersModel:
        """Let the task use the model as the step says."""
        with self._loading():
            model, self._plain = self._plain, None
            self._task.drop()
            dtype = FLOAT32 if step.dtype == INT8 else step.dtype
            if model is None or model.dtype != dtype:
                # The other model goes first.
                model = None
                gc.collect()
                model = load(self._task.auto_class, self._folder, dtype, task=self._task.task)
            model = _with_layers(model, step)
            model = replace(model, equal_lengths=step.equal_lengths, token_limit=step.max_tokens)
            self._task.use(model)
        return model

    def _right_answers(self) -> tuple[Rehearsal, list[torch.Tensor]]:
        """Return the answers of transformers' own model to each text alone, in float32 if it has room."""
        with self._loading():
            self._plain = load(self._task.auto_class, self._folder, self._compared_with, task=self._task.task)
            self._task.use(self._plain)
        try:
            self._task.check_model()
            rehearsal = Rehearsal(
                self._task, self._plain.model, fewer=self._parameters > _LARGE or not self._task.compared
            )
            expected = rehearsal.within_limit()
            rule = self._task.changed(exact=self._compared_with == FLOAT32)
            self._mixes = bool(rehearsal.short_batch(expected, rule).changed)
        except ModelLoadError:
            raise
        except Exception as error:
            logger.info("%s: the model fails on a text", self._folder, exc_info=True)
            raise ModelLoadError(f"{self._folder}: the model fails on a text: {words(error)}") from error
        return rehearsal, expected

    def _ladder(self, rehearsal: Rehearsal) -> Iterator[Step]:
        assert self._plain is not None
        replaceable = not self._quantized and self._plain.device.type == "cpu"
        own = replaceable and self._task.own_layers and can_unpad(self._plain.model)
        steps = self._task.in_steps and not self._quantized
        dtypes = [self._wanted]
        if self._wanted != self._compared_with:
            dtypes.append(FLOAT32)
        for dtype in dtypes:
            onednn = replaceable and dtype != INT8 and has_kernels(torch_dtype(dtype))
            possible = {Layers.OWN: own, Layers.STEPS: steps, Layers.ONEDNN: onednn, Layers.PLAIN: True}
            for layers in filter(possible.get, Layers):
                yield Step(dtype, layers, max_tokens=rehearsal.max_tokens)

    def _tried(self, step: Step, rehearsal: Rehearsal, expected: Sequence[torch.Tensor]) -> Proof | None:
        """Return a proof of the step, or of batches of equal lengths in it; None if neither is right."""
        model = self.serve(step)
        rule = self._task.changed(exact=step.dtype == FLOAT32)
        alone = compare(expected, rehearsal.alone(), rule)
        if alone.changed:
            self._note(step, alone, "")
            return None
        if self._mixes and step.layers not in (Layers.OWN, Layers.STEPS):
            self._reasons.append(f"{step}: texts of different lengths in a batch change each other's answers")
        else:
            together = rehearsal.mixed_batches(expected, rule)
            if not together.changed:
                return self._proof(step, alone.with_greatest_of(together))
            self._note(step, together, " in a batch")
            if step.layers is Layers.STEPS:
                # Steps have texts of any lengths.
                return None
        step = replace(step, equal_lengths=True)
        self._task.use(replace(model, equal_lengths=True, token_limit=step.max_tokens))
        together = rehearsal.equal_batches(expected, rule)
        if not together.changed:
            return self._proof(step, alone.with_greatest_of(together))
        self._note(step, together, " in a batch")
        return None

    def _proof(self, step: Step, difference: Difference) -> Proof:
        return Proof(step, tuple(self._reasons), difference, self._compared_with)

    def _note(self, step: Step, difference: Difference, where: str) -> None:
        self._reasons.append(
            f"{step}: {difference.changed} of {difference.texts} answers differ{where} from those that "
            f"transformers' {self._compared_with} model gives alone, by up to {difference.greatest:.2g}"
        )

    @contextmanager
    def _loading(self) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self._loading_seconds += time.monotonic() - started


def _with_layers(model: TransformersModel, step: Step) -> TransformersModel:
    own = step.layers is Layers.OWN
    kernels = _uses_kernels(model, step)
    if own:
        unpad(model.model, fills=kernels)
        model = replace(model, unpadded=True)
    if step.dtype == INT8:
        quantize(model.model)
        model = replace(model, dtype=INT8)
    if kernels:
        use_kernels(model.model)
    if step.layers is not Layers.PLAIN and model.device.type == "cpu":
        share_weights(model.model)
    if model.device.type == "cpu":
        own_weights(model.model)
    if own:
        # Compiled layers keep the weights that they were compiled with.
        script(model.model)
    if step.layers is Layers.STEPS:
        steps = DecoderSteps(model.model, model.max_tokens, fills=kernels)
        steps.trace()
        model = replace(model, steps=steps)
    return model


def _uses_kernels(model: TransformersModel, step: Step) -> bool:
    """Return whether the linear layers become those of oneDNN."""
    replaced = step.layers is not Layers.PLAIN and model.device.type == "cpu" and step.dtype != INT8
    return replaced and has_kernels(torch_dtype(step.dtype))
