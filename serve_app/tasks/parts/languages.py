"""From and into which languages a model translates, and how a text and the decoder are told.

| models | the source is | the target is |
| --- | --- | --- |
| NLLB, M2M100, mBART | a token of the text | the first token that is generated, or the decoder's start |
| Marian | fixed | ">>fra<<" in front of the text, if there are several |
| T5 | in a prefix, "translate English to German: " | in the same prefix |
"""

import re
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final

from serve_app.engine.base import ModelLoadError
from serve_app.http.errors import InvalidInputError
from serve_app.text import quoted

_SHOWN: Final = 5
# A language among the special tokens of a tokenizer: eng_Latn, en_XX, __eng__.
_LANGUAGE: Final = re.compile(r"^(?:[a-z]{2,3}_[A-Z][A-Za-z]+|__\w+__)$")
_MARIAN: Final = re.compile(r"^\s*(>>[^<>]*<<)")
_PAIR: Final = re.compile(r"^translation_(\w+)_to_(\w+)$")


class Languages:
    """The languages of a model that knows none by name; the base of those that do."""

    sources: Collection[str] = ()
    targets: Collection[str] = ()

    @property
    def rehearsed(self) -> dict[str, str]:
        """The languages of the texts that warm the model up and prove it."""
        return {}

    def options(self, source: str | None, target: str | None, *, prefixed: bool) -> dict[str, Any]:
        """Return what `generate` is told about the languages; `prefixed` if a text says them itself.

        Raises InvalidInputError for a language that the model does not know, or one that is missing.
        """
        for name, given in (("src_lang", source), ("tgt_lang", target)):
            if given is not None:
                raise InvalidInputError(
                    f"parameters.{name}: got {quoted(given)}; the model's folder names no languages, so "
                    "leave it out; parameters.prefix may say what to do"
                )
        return {}

    def prefix(self, source: str | None, target: str | None) -> str | None:
        """Return what goes in front of the text, if that depends on the languages."""
        return None

    def text(self, text: str, target: str | None) -> str:
        """Return the text as the model expects it."""
        return text

    def ids(self, ids: list[int], source: str | None) -> list[int]:
        """Return the tokens of a text with the language that it is in."""
        return ids


class TokenLanguages(Languages):
    """Each language is a token: of NLLB, M2M100, mBART and others.

    A tokenizer of transformers has one source language at a time, and threads share it. So it always has the
    same one here, and the token of that one is replaced.
    """

    def __init__(self, tokenizer: Any, known_tokens: int, generation: Any) -> None:
        self._by_name = _language_tokens(tokenizer, known_tokens)
        if not self._by_name:
            raise ModelLoadError(f"{type(tokenizer).__name__} names no language that the model knows")
        self.sources = self.targets = self._by_name
        self._stated_source = _stated(tokenizer.init_kwargs.get("src_lang"), self._by_name)
        # mBART's first models start the decoder with the language; all others force the first token.
        names = {number: name for name, number in self._by_name.items()}
        stated = {
            option: names[getattr(generation, option)]
            for option in ("forced_bos_token_id", "decoder_start_token_id")
            if getattr(generation, option, None) in names
        }
        self._options = list(stated) or ["forced_bos_token_id"]
        tokenizer_target = _stated(tokenizer.init_kwargs.get("tgt_lang"), self._by_name)
        self._stated_target = next(iter(stated.values()), tokenizer_target)
        self._places = _places(tokenizer, self._by_name)

    @property
    def rehearsed(self) -> dict[str, str]:
        names = list(self._by_name)
        return {
            "src_lang": self._stated_source or names[0],
            "tgt_lang": self._stated_target or names[-1],
        }

    def options(self, source: str | None, target: str | None, *, prefixed: bool) -> dict[str, Any]:
        self._number("src_lang", source or self._stated_source)
        number = self._number("tgt_lang", target or self._stated_target)
        return dict.fromkeys(self._options, number)

    def ids(self, ids: list[int], source: str | None) -> list[int]:
        number = self._number("src_lang", source or self._stated_source)
        found = [*ids]
        for place in self._places:
            found[place] = number
        return found

    def _number(self, parameter: str, name: str | None) -> int:
        return self._by_name[required(parameter, name, self._by_name)]


class MarianLanguages(Languages):
    """A model with one source, and one target or several."""

    def __init__(self, tokenizer: Any) -> None:
        codes = [code[2:-2] for code in tokenizer.supported_language_codes]
        self.targets = codes or list(filter(None, [tokenizer.target_lang]))
        self.sources = list(filter(None, [tokenizer.source_lang]))
        self._several = len(codes) > 1
        self._codes = frozenset(codes)

    @property
    def rehearsed(self) -> dict[str, str]:
        return {"tgt_lang": next(iter(self.targets))} if self._several else {}

    def options(self, source: str | None, target: str | None, *, prefixed: bool) -> dict[str, Any]:
        if source is not None:
            required("src_lang", source, self.sources)
        if target is not None:
            required("tgt_lang", _bare(target), self.targets)
        return {}

    def text(self, text: str, target: str | None) -> str:
        own = _MARIAN.match(text)
        if own and self._codes:
            required("tgt_lang", _bare(own[1]), self.targets, where="the text begins with")
            return text.lstrip()
        if target is None and self._several:
            required("tgt_lang", None, self.targets, otherwise='begin the text with such as ">>fra<<"')
        name = None if target is None else _bare(target)
        return f">>{name}<< {text}" if name in self._codes else text


class StatedLanguages(Languages):
    """A model whose config.json states a prefix and other parameters for each pair of languages, as of T5.

    `pairs` has what is stated by source and target. A request may name no pair if `optional`.
    """

    def __init__(self, pairs: Mapping[tuple[str, str], Mapping[str, Any]], *, optional: bool) -> None:
        self._pairs = pairs
        self._optional = optional
        self.sources = list(dict.fromkeys(source for source, _ in pairs))
        self.targets = list(dict.fromkeys(target for _, target in pairs))

    @property
    def rehearsed(self) -> dict[str, str]:
        source, target = next(iter(self._pairs))
        return {"src_lang": source, "tgt_lang": target}

    def options(self, source: str | None, target: str | None, *, prefixed: bool) -> dict[str, Any]:
        pair = self._pair(source, target, prefixed=prefixed)
        return (
            {} if pair is None else {key: each for key, each in self._pairs[pair].items() if key != "prefix"}
        )

    def prefix(self, source: str | None, target: str | None) -> str | None:
        pair = self._pair(source, target, prefixed=False)
        return None if pair is None else self._pairs[pair].get("prefix")

    def _pair(self, source: str | None, target: str | None, *, prefixed: bool) -> tuple[str, str] | None:
        if source is None and target is None and (prefixed or self._optional):
            return None
        if source is not None:
            required("src_lang", source, self.sources)
        if target is not None:
            required("tgt_lang", target, self.targets)
        fits = [pair for pair in self._pairs if source in (None, pair[0]) and target in (None, pair[1])]
        if len(fits) == 1:
            return fits[0]
        known = [" to ".join(pair) for pair in fits or self._pairs]
        if not fits:
            raise InvalidInputError(
                f"parameters.src_lang and tgt_lang: got {quoted(f'{source} to {target}')}; this model knows "
                f"{_listed(known, '')}"
            )
        name = "tgt_lang" if target is None else "src_lang"
        raise InvalidInputError(
            f"parameters.{name} is missing; this model knows {_listed(known, '')}; parameters.prefix may say "
            "the languages instead"
        )


def pairs_of(sections: Any) -> dict[tuple[str, str], str]:
    """Return the names of the sections for pairs of languages, by source and target."""
    found = {name: _PAIR.match(str(name)) for name in sections} if isinstance(sections, Mapping) else {}
    return {(match[1], match[2]): name for name, match in found.items() if match}


def required(
    parameter: str,
    name: str | None,
    known: Collection[str],
    *,
    where: str = "",
    otherwise: str = "",
) -> str:
    """Return `name` if it is one of the known languages; raise InvalidInputError if not."""
    if name is None:
        ways = f", or {otherwise}" if otherwise else ""
        raise InvalidInputError(
            f"parameters.{parameter} is missing; give it in the request or the endpoint{ways}; this model "
            f"knows {_listed(known, '')}"
        )
    if name not in known:
        begin = where or f"parameters.{parameter}: got"
        knows = (
            f"this model knows {_listed(known, name)}" if known else "this model names none, so leave it out"
        )
        raise InvalidInputError(f"{begin} {quoted(name)}; {knows}")
    return name


def _listed(known: Collection[str], near: str) -> str:
    """Return a few of the names, those like `near` first."""
    likely = get_close_matches(near, known, n=_SHOWN, cutoff=0.4) if near else []
    names = list(dict.fromkeys([*likely, *known]))
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _bare(code: str) -> str:
    return code[2:-2] if code.startswith(">>") and code.endswith("<<") else code


def _stated(name: Any, known: Mapping[str, int]) -> str | None:
    """Return the language that the folder's tokenizer states; raise ModelLoadError if it is none."""
    if name is None:
        return None
    bare = str(name).strip("_")
    found = next((each for each in (str(name), bare) if each in known), None)
    if found is None:
        raise ModelLoadError(
            f"tokenizer_config.json states the language {quoted(name)}, which it does not have"
        )
    return found


def _language_tokens(tokenizer: Any, known_tokens: int) -> dict[str, int]:
    """Return the number of each language's token; those that the model has no embedding for are left out."""
    tokens = dict(getattr(tokenizer, "lang_code_to_token", {}))
    if not tokens:
        special = [token for token in map(str, tokenizer.extra_special_tokens) if _LANGUAGE.match(token)]
        listed = [*getattr(tokenizer, "lang_code_to_id", {}), *special]
        tokens = {token.strip("_"): token for token in listed}
    numbers = {name: tokenizer.convert_tokens_to_ids(token) for name, token in tokens.items()}
    return {
        name: number
        for name, number in numbers.items()
        if number is not None and number != tokenizer.unk_token_id and number < known_tokens
    }


def _places(tokenizer: Any, numbers: Mapping[str, int]) -> Sequence[int]:
    """Return where a text's tokens have its language; negative places count from the end.

    The tokenizer keeps the first of the languages. Raises ModelLoadError if it does not do what it says.
    """
    first, *others = numbers
    tokenizer.src_lang = first
    before, after = tokenizer.prefix_tokens, tokenizer.suffix_tokens
    places = [place for place, token in enumerate(before) if token == numbers[first]]
    places += [place - len(after) for place, token in enumerate(after) if token == numbers[first]]
    ids = tokenizer("ready")["input_ids"]
    for other in others[:1]:
        tokenizer.src_lang = other
        right = tokenizer("ready")["input_ids"]
        tokenizer.src_lang = first
        for place in places:
            ids[place] = numbers[other]
        if ids != right or not places:
            raise ModelLoadError(f"{type(tokenizer).__name__} has languages in places that it does not state")
    return places
