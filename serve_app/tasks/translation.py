"""translation: an encoder-decoder model translates a text, as the pipeline of transformers 4 did."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from serve_app.contract import ParameterValue, Task
from serve_app.engine.base import InputLimit, ModelLoadError, Output
from serve_app.parameters import GenerationParameters, Text2TextGenerationParameters, TranslationParameters
from serve_app.tasks.parts.languages import (
    Languages,
    MarianLanguages,
    StatedLanguages,
    TokenLanguages,
    pairs_of,
)
from serve_app.tasks.parts.stated import StatedGeneration
from serve_app.text import quoted


class Translation(StatedGeneration):
    """A model for one pair of languages, or for several that the request or the endpoint chooses from.

    config.json may state parameters under `translation`, and for a pair under `translation_en_to_de`.
    """

    task: ClassVar = Task.TRANSLATION
    outputs: ClassVar = (Output("translation_text", "BYTES", (-1,)),)

    def load_extras(self, folder: Path) -> None:
        super().load_extras(folder)
        self._languages = self._found_languages(folder)

    def stated(self, folder: Path) -> Mapping[str, Any]:
        pairs = list(pairs_of(self.sections).values())
        only = self.section(folder, pairs[0]) if len(pairs) == 1 else {}
        return {**super().stated(folder), **only}

    def _found_languages(self, folder: Path) -> Languages:
        tokenizer = self._pretrained.hf_tokenizer
        # The pipeline of transformers 4 looked for this method too.
        if hasattr(tokenizer, "_build_translation_inputs"):
            try:
                return TokenLanguages(
                    tokenizer, self._pretrained.vocabulary, self._pretrained.model.generation_config
                )
            except ModelLoadError as error:
                raise ModelLoadError(f"{folder}: {error}") from error
        if hasattr(tokenizer, "supported_language_codes"):
            return MarianLanguages(tokenizer)
        pairs = pairs_of(self.sections)
        if not pairs:
            return Languages()
        if len(pairs) == 1:
            # What it states is stated for every request.
            return StatedLanguages(dict.fromkeys(pairs, {}), optional=True)
        options = {pair: self._options_of(folder, name) for pair, name in pairs.items()}
        return StatedLanguages(options, optional=self.task in self.sections)

    def _options_of(self, folder: Path, name: str) -> dict[str, Any]:
        """Return what `generate` is told for one of several pairs of languages, and the prefix."""
        generation = self._pretrained.model.generation_config
        section = self.section(folder, name)
        options = {
            key: self.within_positions(key, value)
            for key, value in section.items()
            if key == "prefix" or hasattr(generation, key)
        }
        for key, value in options.items():
            if not isinstance(value, bool | int | float | str | None):
                raise ModelLoadError(
                    f"{folder}/config.json: task_specific_params.{name}.{key}: got {quoted(value)}; must be "
                    "text, a number, true or false; generation_config.json takes lists"
                )
        return options

    @property
    def description(self) -> Mapping[str, Any]:
        return {
            **super().description,
            "source_languages": list(self._languages.sources),
            "target_languages": list(self._languages.targets),
        }

    @property
    def warmup_parameters(self) -> Mapping[str, ParameterValue]:
        return {**super().warmup_parameters, **self._languages.rehearsed}

    def options(self, parameters: GenerationParameters) -> dict[str, Any]:
        assert isinstance(parameters, TranslationParameters)
        given = super().options(parameters)
        prefixed = "prefix" in parameters.model_fields_set
        told = self._languages.options(parameters.src_lang, parameters.tgt_lang, prefixed=prefixed)
        if "max_new_tokens" not in given and "max_length" in told:
            told["max_new_tokens"] = None
        return {**told, **given}

    def prefix(self, parameters: Text2TextGenerationParameters) -> str:
        assert isinstance(parameters, TranslationParameters)
        if "prefix" in parameters.model_fields_set:
            return parameters.prefix
        stated = self._languages.prefix(parameters.src_lang, parameters.tgt_lang)
        return self._prefix if stated is None else stated

    def features(
        self, text: str, parameters: Text2TextGenerationParameters, limit: InputLimit
    ) -> dict[str, list[int]]:
        assert isinstance(parameters, TranslationParameters)
        # A language in front of the text must be the first thing that the model reads.
        whole = self._languages.text(self.prefix(parameters) + text, parameters.tgt_lang)
        features = self._pretrained.encode(whole, limit)
        return features | {"input_ids": self._languages.ids(features["input_ids"], parameters.src_lang)}
