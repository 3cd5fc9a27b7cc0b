"""summarization: an encoder-decoder model shortens a text, as the pipeline of transformers 4 did.

transformers 5 has no such pipeline, and ignores what that pipeline read from config.json.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from transformers import AutoConfig

from serve_app.contract import ParameterValue, Task
from serve_app.engine.base import ModelLoadError, Output
from serve_app.parameters import (
    GenerationParameters,
    SummarizationParameters,
    Text2TextGenerationParameters,
    parse_parameters,
)
from serve_app.tasks.text2text_generation import Text2TextGeneration
from serve_app.text import quoted


class Summarization(Text2TextGeneration):
    """What neither the request nor the endpoint sets is as the model states it.

    `task_specific_params` of config.json go before generation_config.json.
    """

    task: ClassVar = Task.SUMMARIZATION
    outputs: ClassVar = (Output("summary_text", "BYTES", (-1,)),)
    warmup_parameters: ClassVar[Mapping[str, ParameterValue]] = {"max_new_tokens": 1, "min_length": 0}

    def load_extras(self, folder: Path) -> None:
        config = self._pretrained.model.config
        generation = self._pretrained.model.generation_config
        try:
            stated = _stated_parameters(config)
            self._prefix = str(stated.pop("prefix", getattr(config, "prefix", None) or ""))
            generation.update(**stated)
        except ValueError as error:
            where = f"{folder}/config.json: task_specific_params.{self.task}"
            raise ModelLoadError(f"{where}: {error}") from error
        super().load_extras(folder)

    def prefix(self, parameters: Text2TextGenerationParameters) -> str:
        return parameters.prefix if "prefix" in parameters.model_fields_set else self._prefix

    def options(self, parameters: GenerationParameters) -> dict[str, Any]:
        given = super().options(parameters)
        # `generate` would prefer the model's max_new_tokens.
        return {"max_new_tokens": None, **given} if "max_length" in given else given

    def read_folder(self, folder: Path) -> None:
        architecture = _other_architecture(folder)
        if architecture:
            # transformers would list all architectures that it knows.
            raise ModelLoadError(
                f"{folder} cannot be loaded for {self.task}: {architecture} is no encoder-decoder; "
                "correct spec.model.task or the folder"
            )


def _other_architecture(folder: Path) -> str | None:
    """Return the name of the folder's architecture if it is no encoder-decoder."""
    # What else is wrong with the folder, `load` says.
    with suppress(Exception):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        if not config.is_encoder_decoder:
            return str((config.architectures or [config.model_type])[0])
    return None


def _stated_parameters(config: Any) -> dict[str, Any]:
    """Return what config.json states for this task; raise ValueError if the task would not take it."""
    sections = getattr(config, "task_specific_params", None) or {}
    stated = sections.get(Task.SUMMARIZATION, {}) if isinstance(sections, Mapping) else sections
    if not isinstance(stated, Mapping):
        raise ValueError(f"got {quoted(stated)}; must be an object")
    known = SummarizationParameters.model_fields
    checked = {name: value for name, value in stated.items() if name in known}
    # A model may also state "never", which a manifest and a request cannot.
    if checked.get("early_stopping") == "never":
        del checked["early_stopping"]
    parse_parameters(Task.SUMMARIZATION, checked)
    return dict(stated)
