"""The common base of the tasks: a model of one transformers auto class, and texts encoded one by one."""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Final

import torch

from serve_app.contract import Dtype, ParameterValue, Task
from serve_app.encoders.cpu_threads import use_threads
from serve_app.engine.base import (
    EncodedSequence,
    Input,
    InputLimit,
    NotFiniteError,
    Progress,
    TaskModel,
    characters_of,
)
from serve_app.loading.prepare import prepare
from serve_app.loading.proof import Changed, label_changed, rounding_changed
from serve_app.loading.transformers_model import TransformersModel
from serve_app.parameters import parse_parameters

# As an overhead, this makes batches as large as possible: on an accelerator, and for generation, a batch of
# any size takes about the same time.
FULL_BATCHES: Final = 10**6

# Texts with up to this many characters are encoded on the event loop, which takes about 0.3 ms.
_BRIEF_CHARACTERS: Final = 1000


class PretrainedTask(TaskModel):
    """A task with a model of transformers, which is proved before it serves: see loading/prepare.py."""

    task: ClassVar[Task]
    auto_class: Any
    # Whether `auto` may choose a shorter dtype on a CPU. Generated texts may differ in every word.
    compared: bool = True
    # Whether the layers of encoders/unpad.py suit the task.
    own_layers: bool = True
    # Whether the model may be computed in steps, by decoders/.
    in_steps: bool = False
    # Whether `decode` takes only microseconds and needs no tokenizer.
    decodes_fast: ClassVar[bool] = False

    def __init__(self, folder: Path, dtype: Dtype) -> None:
        self._folder = folder
        self.read_folder(folder)
        self._proof = prepare(folder, self.model_folder, self, dtype)
        self.proof_seconds = self._proof.seconds

    def read_folder(self, folder: Path) -> None:
        """Read what the task needs from the folder before the model is loaded."""

    @property
    def model_folder(self) -> Path:
        """The folder of the model itself."""
        return self._folder

    def use(self, model: TransformersModel) -> None:
        """Answer with this model from now on."""
        self._pretrained = model
        self.load_extras(self._folder)

    def drop(self) -> None:
        """Let go of the model; a task that keeps it in something else lets go of that too."""
        self.__dict__.pop("_pretrained", None)

    def load_extras(self, folder: Path) -> None:
        """Load what the task needs besides the model; raise ModelLoadError if the folder lacks it."""

    def check_model(self) -> None:
        """Raise ModelLoadError if the model in use is none for the task."""

    @property
    def max_tokens(self) -> int:
        return self._pretrained.max_tokens

    @property
    def description(self) -> Mapping[str, Any]:
        return self._pretrained.description | {"proof": self._proof.description}

    @property
    def batch_overhead_tokens(self) -> int:
        on_cpu = self._pretrained.device.type == "cpu"
        return super().batch_overhead_tokens if on_cpu else FULL_BATCHES

    @property
    def batches_at_once(self) -> int:
        return self._pretrained.threads if self._pretrained.unpadded else 1

    @property
    def has_side_stream(self) -> bool:
        return self._pretrained.unpadded

    def prepare_thread(self, exclusive: bool) -> None:
        use_threads(self._pretrained.threads if exclusive else 1)

    @property
    def pads(self) -> bool:
        return not self._pretrained.unpadded

    def encodes_inline(self, texts: Sequence[Input]) -> bool:
        if not self.decodes_fast or not self._pretrained.tokenizer.thread_safe:
            return False
        return sum(map(characters_of, texts)) <= _BRIEF_CHARACTERS

    def encode(self, text: Any, parameters: Any, limit: InputLimit) -> Sequence[EncodedSequence]:
        return self.grouped(self.sequences(text, parameters, limit))

    def grouped(self, sequences: Sequence[EncodedSequence]) -> Sequence[EncodedSequence]:
        """Return the sequences with all that they must share in a batch as their group."""
        if not self._pretrained.equal_lengths:
            return sequences
        return [replace(each, group=(each.length, each.group)) for each in sequences]

    def sequences(self, text: Any, parameters: Any, limit: InputLimit) -> Sequence[EncodedSequence]:
        """Return the sequences that answer `text`, with what they must share in a batch as their group."""
        return [EncodedSequence(self._pretrained.encode(text, limit))]

    def group_of(self, batch: Sequence[EncodedSequence]) -> Any:
        """Return the group that `sequences` has given to all of the batch."""
        group: Any = batch[0].group
        return group[1] if self._pretrained.equal_lengths else group

    def forward(self, batch: Sequence[EncodedSequence], progress: Progress) -> Sequence[Any]:
        with torch.inference_mode():
            outputs = self.run(batch, progress)
            require_finite(outputs)
            return outputs

    @abstractmethod
    def run(self, batch: Sequence[EncodedSequence], progress: Progress) -> Sequence[Any]:
        """Return one raw output for each sequence of `batch`. Called in torch's inference mode."""

    def scores(self, output: torch.Tensor) -> torch.Tensor:
        """Return the scores that a client gets from a raw output, in the same shape."""
        return output.softmax(-1)

    def changed(self, *, exact: bool) -> Changed:
        """Return the rule by which two answers are not the same."""
        return rounding_changed if exact else label_changed

    @property
    def proof_parameters(self) -> Mapping[str, ParameterValue]:
        """The parameters with which the texts of the proof are answered."""
        return self.warmup_parameters

    def proof_text(self, text: str) -> Input:
        """Return `text` as the task can answer it."""
        return text

    def proof_sequences(self, texts: Sequence[str], max_tokens: int) -> list[EncodedSequence]:
        """Return one sequence for each text."""
        parameters = parse_parameters(self.task, self.proof_parameters)
        limit = InputLimit(max_tokens, truncate=True)
        return [self.encode(self.proof_text(text), parameters, limit)[0] for text in texts]

    def proof_answers(self, batch: Sequence[EncodedSequence]) -> list[torch.Tensor]:
        """Return the scores for each sequence."""
        return [self.scores(output) for output in self.forward(batch, Progress((), 0))]

    def _logits(self, batch: Sequence[EncodedSequence]) -> torch.Tensor:
        """Return the model's logits for a padded batch, as float32 in CPU memory."""
        logits: torch.Tensor = self._pretrained.run(self._pretrained.collate(batch)).logits
        return logits.float().cpu()


def require_finite(outputs: Sequence[Any]) -> None:
    """Raise NotFiniteError if a number in `outputs` is none; a sum shows that at once."""
    for output in outputs:
        if output.is_floating_point() and not math.isfinite(output.sum().item()):
            raise NotFiniteError
