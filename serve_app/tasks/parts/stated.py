"""Tasks of encoder-decoder models that state their own parameters.

The pipelines of transformers 4 read them from config.json. transformers 5 has no such pipelines, and ignores
what they read.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from serve_app.contract import ParameterValue
from serve_app.engine.base import ModelLoadError
from serve_app.parameters import (
    PARAMETERS,
    GenerationParameters,
    Text2TextGenerationParameters,
    parse_parameters,
)
from serve_app.tasks.text2text_generation import Text2TextGeneration
from serve_app.text import quoted


class StatedGeneration(Text2TextGeneration):
    """What neither the request nor the endpoint sets is as the model states it.

    `task_specific_params` of config.json go before generation_config.json.
    """

    @property
    def warmup_parameters(self) -> Mapping[str, ParameterValue]:
        return {"max_new_tokens": 1, "min_length": 0}

    def load_extras(self, folder: Path) -> None:
        config = self._pretrained.model.config
        stated = dict(self.stated(folder))
        self._prefix = str(stated.pop("prefix", getattr(config, "prefix", None) or ""))
        try:
            self._pretrained.model.generation_config.update(**stated)
        except ValueError as error:
            raise ModelLoadError(
                f"{folder}/config.json: task_specific_params.{self.task}: {error}"
            ) from error
        super().load_extras(folder)

    def stated(self, folder: Path) -> Mapping[str, Any]:
        """Return what config.json states for every request of this task."""
        return self.section(folder, self.task)

    def section(self, folder: Path, name: str) -> dict[str, Any]:
        """Return what `task_specific_params` state under `name`.

        Raises ModelLoadError if the task would not take it.
        """
        sections = self.sections
        stated = sections.get(name, {}) if isinstance(sections, Mapping) else sections
        try:
            if not isinstance(stated, Mapping):
                raise ValueError(f"got {quoted(stated)}; must be an object")
            known = PARAMETERS[self.task].model_fields
            checked = {key: value for key, value in stated.items() if key in known}
            # A model may also state "never", which a manifest and a request cannot.
            if checked.get("early_stopping") == "never":
                del checked["early_stopping"]
            parse_parameters(self.task, checked)
        except ValueError as error:
            where = f"{folder}/config.json: task_specific_params.{name}"
            raise ModelLoadError(f"{where}: {error}") from error
        return dict(stated)

    @property
    def sections(self) -> Any:
        """What config.json states for single tasks; an object, if it is right."""
        return getattr(self._pretrained.model.config, "task_specific_params", None) or {}

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
