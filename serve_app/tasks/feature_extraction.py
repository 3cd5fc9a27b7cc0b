"""feature-extraction: one vector for a text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
import transformers
from tokenizers import normalizers
from transformers import AutoConfig, AutoModel

from serve_app.contract import Task
from serve_app.engine.base import EncodedSequence, InputLimit, ModelLoadError, Output, Prediction, Progress
from serve_app.http.errors import InvalidInputError
from serve_app.loading.folder import check_folder
from serve_app.loading.proof import Changed, direction_changed, rounding_changed
from serve_app.loading.sentence_transformers import read_embedding_folder
from serve_app.loading.vector_modules import Pooling, normalized
from serve_app.parameters import FeatureExtractionParameters
from serve_app.tasks.pretrained_task import PretrainedTask
from serve_app.text import words


@dataclass(frozen=True)
class VectorOptions:
    """What one request asks for: a pooling, and vectors of length 1; None is as the folder says."""

    pooling: Pooling
    normalize: bool | None


class FeatureExtraction(PretrainedTask):
    """An encoder with the modules that its folder states, by default the mean of its token vectors."""

    task: ClassVar = Task.FEATURE_EXTRACTION
    decodes_fast: ClassVar = True
    outputs: ClassVar = (Output("embedding", "FP32", (-1, -1)),)

    def read_folder(self, folder: Path) -> None:
        self._stated = read_embedding_folder(folder)
        self.auto_class = _auto_class(self._stated.transformer)

    @property
    def model_folder(self) -> Path:
        return self._stated.transformer

    def load_extras(self, folder: Path) -> None:
        tokenizer = self._pretrained.hf_tokenizer
        if self._stated.lowercase and tokenizer.is_fast:
            backend = tokenizer.backend_tokenizer
            others = [backend.normalizer] if backend.normalizer else []
            backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *others])
        skipped = 0
        if self._stated.prompt and not self._stated.include_prompt:
            skipped = _prompt_tokens(self._pretrained, self._stated.prompt)
        self._pooling = replace(self._stated.pooling, skipped=skipped)

    @property
    def max_tokens(self) -> int:
        return min(super().max_tokens, self._stated.max_tokens or super().max_tokens)

    @property
    def description(self) -> Mapping[str, Any]:
        stated = {
            "pooling": str(self._pooling),
            "normalize": self._stated.normalize,
            "modules": [name for name, _ in self._stated.modules],
            "prompt": self._stated.prompt,
        }
        return {**super().description, **stated}

    def sequences(
        self, text: str, parameters: FeatureExtractionParameters, limit: InputLimit
    ) -> Sequence[EncodedSequence]:
        pooling = self._pooling
        if parameters.pooling is not None:
            pooling = replace(pooling, modes=(parameters.pooling,))
            if len(self._pooling.modes) > 1 and any(name != "Normalize" for name, _ in self._stated.modules):
                raise InvalidInputError(
                    f"parameters.pooling: got {parameters.pooling!r}; the modules behind the pooling need "
                    f"the width of {self._pooling}"
                )
        features = self._pretrained.encode(self._stated.prompt + text, limit)
        return [EncodedSequence(features, VectorOptions(pooling, parameters.normalize))]

    def run(self, batch: Sequence[EncodedSequence], progress: Progress) -> Sequence[Any]:
        """Return one vector of shape (width,) for each sequence."""
        options: VectorOptions = self.group_of(batch)
        hidden = self._pretrained.run(self._pretrained.collate(batch)).last_hidden_state.float()
        lengths = torch.tensor([each.length for each in batch], device=hidden.device)
        mask = (torch.arange(hidden.shape[1], device=hidden.device) < lengths[:, None]).long()
        vectors = options.pooling(hidden, mask).cpu()
        modules = list(self._stated.modules)
        if options.normalize is False and self._stated.normalize:
            modules.pop()
        for _, module in modules:
            vectors = module(vectors)
        return list(normalized(vectors) if options.normalize else vectors)

    def scores(self, output: torch.Tensor) -> torch.Tensor:
        return output

    def changed(self, *, exact: bool) -> Changed:
        return rounding_changed if exact else direction_changed

    def decode(
        self,
        text: str,
        encoded: Sequence[EncodedSequence],
        outputs: Sequence[torch.Tensor],
        parameters: FeatureExtractionParameters,
    ) -> Prediction:
        return {"embedding": outputs[0].tolist()}


def _auto_class(folder: Path) -> Any:
    """Return the class of transformers; of an encoder-decoder such as T5, one with the encoder alone."""
    check_folder(folder, AutoModel.__name__)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        reason = words(error)
        raise ModelLoadError(f"{folder} cannot be loaded for {Task.FEATURE_EXTRACTION}: {reason}") from error
    if not getattr(config, "is_encoder_decoder", False) or type(config) not in AutoModel._model_mapping:
        return AutoModel
    whole = AutoModel._model_mapping[type(config)].__name__
    return getattr(transformers, f"{whole.removesuffix('Model')}EncoderModel", AutoModel)


def _prompt_tokens(model: Any, prompt: str) -> int:
    """Return the number of tokens of the prompt, without the one that ends a text."""
    ids = model.encode(prompt, InputLimit(model.max_tokens, truncate=True))["input_ids"]
    ends = (model.hf_tokenizer.sep_token_id, model.hf_tokenizer.eos_token_id)
    return len(ids) - (ids[-1] in ends)
