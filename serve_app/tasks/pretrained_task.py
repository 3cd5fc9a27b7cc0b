"""The common base of the tasks: a model of one transformers auto class, and texts encoded one by one."""

import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Final

import torch

from serve_app.contract import Dtype, Task
from serve_app.encoders.cpu_threads import use_threads
from serve_app.encoders.onednn import has_kernels, use_kernels
from serve_app.encoders.shared_weights import share_weights
from serve_app.encoders.unpad import can_unpad, script, unpad
from serve_app.engine.base import EncodedSequence, InputLimit, ModelLoadError, Progress, TaskModel
from serve_app.loading.accuracy import CHECK_TEXTS, AccuracyCheck, compare
from serve_app.loading.dtypes import FLOAT32, INT8, convert, resolve_dtype, torch_dtype
from serve_app.loading.own_weights import own_weights
from serve_app.loading.transformers_model import load, this_device
from serve_app.parameters import parse_parameters

# As an overhead, this makes batches as large as possible: on an accelerator, and for generation, a batch of
# any size takes about the same time.
FULL_BATCHES: Final = 10**6

# Texts with up to this many characters are encoded on the event loop, which takes about 0.3 ms.
_BRIEF_CHARACTERS: Final = 1000

# Serve sends this logger's records to the replica's log.
logger = logging.getLogger("ray.serve")


class PretrainedTask(TaskModel):
    """A task with a model of transformers.

    When the model is loaded in another dtype than float32, its predictions for a few texts are compared with
    those in float32. If one has changed, `auto` and int8 fall back to float32. float16 and bfloat16 are kept
    if the endpoint names them.
    """

    task: ClassVar[Task]
    auto_class: ClassVar[Any]
    # Whether dtypes are compared. Generated texts may differ in every word and be equally good.
    compared: ClassVar[bool] = True
    # Whether the prediction is the highest of the scores in the last dimension.
    labelled: ClassVar[bool] = True
    # Whether `decode` takes only microseconds and needs no tokenizer.
    decodes_fast: ClassVar[bool] = False

    def __init__(self, folder: Path, dtype: Dtype) -> None:
        self._check: AccuracyCheck | None = None
        device = this_device()
        wanted = resolve_dtype(dtype, device, compared=self.compared)
        if wanted == INT8 and device.type != "cpu":
            raise ModelLoadError("spec.model.dtype: int8 runs on processors only; use bfloat16 or float16")
        self._load(folder, FLOAT32 if self.compared or wanted == INT8 else wanted)
        if self._pretrained.dtype == wanted:
            self._speed_up()
        elif not self.compared:
            self._convert(wanted)
        else:
            self._convert_and_compare(folder, wanted, may_drop=dtype in ("auto", INT8))
        self._settle()

    def _convert_and_compare(self, folder: Path, wanted: str, *, may_drop: bool) -> None:
        expected = self._check_scores()
        self._convert(wanted)
        self._check = compare(wanted, expected, self._check_scores(), labelled=self.labelled)
        if may_drop and self._check.changed_predictions:
            self._load(folder, FLOAT32)
            self._speed_up()
        log = logger.warning if self._check.changed_predictions else logger.info
        log("%s; the model runs in %s", self._check, self._pretrained.dtype)

    def load_extras(self, folder: Path) -> None:
        """Load what the task needs besides the model; raise ModelLoadError if the folder lacks it."""

    @property
    def max_tokens(self) -> int:
        return self._pretrained.max_tokens

    @property
    def description(self) -> Mapping[str, Any]:
        checked = {"dtype_check": self._check.description} if self._check else {}
        return self._pretrained.description | checked

    @property
    def batch_overhead_tokens(self) -> int:
        on_cpu = self._pretrained.device.type == "cpu"
        return super().batch_overhead_tokens if on_cpu else FULL_BATCHES

    @property
    def batches_at_once(self) -> int:
        return self._pretrained.threads if self._pretrained.unpadded else 1

    def prepare_thread(self, exclusive: bool) -> None:
        use_threads(self._pretrained.threads if exclusive else 1)

    @property
    def pads(self) -> bool:
        return not self._pretrained.unpadded

    @property
    def check_texts(self) -> Sequence[str]:
        """The texts for the comparison of dtypes."""
        return CHECK_TEXTS

    def encodes_inline(self, texts: Sequence[str]) -> bool:
        if not self.decodes_fast or not self._pretrained.tokenizer.thread_safe:
            return False
        return sum(map(len, texts)) <= _BRIEF_CHARACTERS

    def encode(self, text: str, parameters: Any, limit: InputLimit) -> Sequence[EncodedSequence]:
        return [EncodedSequence(self._pretrained.encode(text, limit))]

    def forward(self, batch: Sequence[EncodedSequence], progress: Progress) -> Sequence[Any]:
        with torch.inference_mode():
            return self.run(batch, progress)

    @abstractmethod
    def run(self, batch: Sequence[EncodedSequence], progress: Progress) -> Sequence[Any]:
        """Return one raw output for each sequence of `batch`. Called in torch's inference mode."""

    def scores(self, output: torch.Tensor) -> torch.Tensor:
        """Return the scores that a client gets from a raw output, in the same shape."""
        return output.softmax(-1)

    def _logits(self, batch: Sequence[EncodedSequence]) -> torch.Tensor:
        """Return the model's logits for a padded batch, as float32 in CPU memory."""
        logits: torch.Tensor = self._pretrained.run(self._pretrained.collate(batch)).logits
        return logits.float().cpu()

    def _load(self, folder: Path, dtype: str) -> None:
        self._pretrained = load(self.auto_class, folder, dtype, task=self.task)
        model = self._pretrained.model
        if self._pretrained.device.type == "cpu" and can_unpad(model):
            unpad(model)
            self._pretrained = replace(self._pretrained, unpadded=True)
        self.load_extras(folder)

    def _convert(self, dtype: str) -> None:
        convert(self._pretrained.model, dtype)
        self._pretrained = replace(self._pretrained, dtype=dtype)
        self._speed_up()

    def _speed_up(self) -> None:
        """Make an encoder's layers call oneDNN."""
        dtype = self._pretrained.dtype
        if self._pretrained.unpadded and dtype != INT8 and has_kernels(torch_dtype(dtype)):
            use_kernels(self._pretrained.model)

    def _settle(self) -> None:
        """Share an encoder's weights with other replicas, then compile its layers: the last steps."""
        if self._pretrained.unpadded:
            share_weights(self._pretrained.model)
        if self._pretrained.device.type == "cpu":
            own_weights(self._pretrained.model)
        if self._pretrained.unpadded:
            script(self._pretrained.model)

    def _check_scores(self) -> list[torch.Tensor]:
        parameters = parse_parameters(self.task, self.warmup_parameters)
        limit = InputLimit(self.max_tokens, truncate=True)
        batch = [each for text in self.check_texts for each in self.encode(text, parameters, limit)]
        return [self.scores(output) for output in self.forward(batch, Progress([]))]
