"""Translation with all kinds of languages, against `generate` of transformers, one by one and in batches."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from serve_app.contract import Task
from serve_app.engine.base import InputLimit, ModelLoadError
from serve_app.http.errors import InvalidInputError
from serve_app.parameters import parse_parameters
from serve_app.tasks import task_class
from tests.folders import asking, translators

TRANSLATE = Task.TRANSLATION
TEXTS = ["the goal was scored in london .", "ada wrote a great example", "paris", "is this good ?"]
# Of each kind of tokens: pairs of languages, one for each text.
LANGUAGES = {
    "nllb": [("eng_Latn", "fra_Latn"), ("fra_Latn", "deu_Latn"), ("deu_Latn", "zho_Hans")],
    "m2m_100": [("en", "fr"), ("fr", "zu"), ("af", "de")],
    "mbart": [("en_XX", "ro_RO"), ("ro_RO", "de_DE"), ("ar_AR", "zh_CN")],
    "mbart50": [("en_XX", "ro_RO"), ("ro_RO", "sl_SI"), ("ar_AR", "zh_CN")],
}


def translated(model, asked, *, alone=False):
    """Return the translation of each text with its parameters, in batches of those that may share one."""
    limit = InputLimit(model.max_tokens, truncate=True)
    parsed = [parse_parameters(TRANSLATE, given) for _, given in asked]
    sequences = [
        model.encode(text, parameters, limit)[0] for (text, _), parameters in zip(asked, parsed, strict=True)
    ]
    groups = {}
    for at, sequence in enumerate(sequences):
        groups.setdefault(at if alone else sequence.group, []).append(at)
    answers = {}
    for numbers in groups.values():
        outputs = model.forward([sequences[at] for at in numbers], asking.Waiting((), 0))
        for at, output in zip(numbers, outputs, strict=True):
            answers[at] = model.decode(asked[at][0], [sequences[at]], [output], parsed[at])
    assert all(list(answer) == ["translation_text"] for answer in answers.values())
    return [answers[at]["translation_text"] for at in range(len(asked))]


def generated(tokenizer, model, text, **options):
    inputs = tokenizer(text, return_tensors="pt")
    made = model.generate(**inputs, do_sample=False, **options)
    return tokenizer.decode(made[0], skip_special_tokens=True)


def generated_in(tokenizer, model, text, source, target, *, told="forced_bos_token_id"):
    """Return what transformers makes of the text, with its tokenizer set to the source language."""
    tokenizer.src_lang = source
    number = (
        tokenizer.get_lang_id(target)
        if hasattr(tokenizer, "get_lang_id")
        else tokenizer.convert_tokens_to_ids(target)
    )
    return generated(tokenizer, model, text, **{told: number})


def asked_in(pairs):
    return [
        (text, {"src_lang": source, "tgt_lang": target})
        for text in TEXTS
        for source, target in [*pairs, pairs[0]]
    ]


@pytest.mark.parametrize("kind", LANGUAGES)
def test_languages_that_are_tokens(kind, tmp_path):
    tokenizer, reference = translators.write(kind, tmp_path / "model")
    model = task_class(TRANSLATE)(tmp_path / "model", "float32")
    asked = asked_in(LANGUAGES[kind])
    right = [generated_in(tokenizer, reference, text, *given.values()) for text, given in asked]
    assert len(set(right)) > len(TEXTS)
    assert translated(model, asked, alone=True) == right
    assert translated(model, asked) == right
    assert {*model.description["source_languages"]} >= {name for pair in LANGUAGES[kind] for name in pair}


def test_the_old_form_of_nllb_has_the_language_behind_the_text(tmp_path):
    translators.write("nllb", tmp_path / "model")
    file = tmp_path / "model" / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"legacy_behaviour": True}))
    model = task_class(TRANSLATE)(tmp_path / "model", "float32")
    tokenizer = type(model._pretrained.hf_tokenizer).from_pretrained(tmp_path / "model")
    parameters = parse_parameters(TRANSLATE, {"src_lang": "deu_Latn", "tgt_lang": "fra_Latn"})
    [sequence] = model.encode("a goal", parameters, InputLimit(60, truncate=True))
    tokenizer.src_lang = "deu_Latn"
    assert sequence.features["input_ids"] == tokenizer("a goal")["input_ids"]
    assert sequence.features["input_ids"][-1] == tokenizer.convert_tokens_to_ids("deu_Latn")


@pytest.mark.parametrize("told", ["decoder_start_token_id", "forced_bos_token_id"])
def test_a_folder_that_states_its_target_is_told_another_in_the_same_way(told, tmp_path):
    """mBART's first models start the decoder with the language."""
    start = translators.write("mbart", tmp_path / "first")[0].convert_tokens_to_ids("ro_RO")
    tokenizer, reference = translators.write("mbart", tmp_path / "model", **{told: start})
    model = task_class(TRANSLATE)(tmp_path / "model", "float32")
    right = [
        generated_in(tokenizer, reference, TEXTS[0], "en_XX", target, told=told)
        for target in ("de_DE", "ro_RO")
    ]
    assert right[0] != right[1]
    asked = [
        (TEXTS[0], {"src_lang": "en_XX", "tgt_lang": "de_DE"}),
        (TEXTS[0], {"src_lang": "en_XX"}),
    ]
    assert translated(model, asked) == right


def test_threads_with_different_languages_do_not_disturb_each_other(tmp_path):
    tokenizer, _ = translators.write("nllb", tmp_path / "model")
    model = task_class(TRANSLATE)(tmp_path / "model", "float32")
    limit = InputLimit(60, truncate=True)

    def encoded(name):
        parameters = parse_parameters(TRANSLATE, {"src_lang": name, "tgt_lang": "fra_Latn"})
        return [
            model.encode("a goal in paris", parameters, limit)[0].features["input_ids"][0] for _ in range(99)
        ]

    names = ["eng_Latn", "deu_Latn", "zho_Hans"]
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(encoded, names * 3))
    assert found == [[tokenizer.convert_tokens_to_ids(name)] * 99 for name in names * 3]


def test_targets_do_not_share_a_batch_and_sources_do(tmp_path):
    translators.write("m2m_100", tmp_path / "model")
    model = task_class(TRANSLATE)(tmp_path / "model", "float32")
    groups = [
        model.encode(
            "a goal",
            parse_parameters(TRANSLATE, {"src_lang": source, "tgt_lang": target}),
            InputLimit(60, truncate=True),
        )[0].group
        for source, target in [("en", "fr"), ("de", "fr"), ("en", "de")]
    ]
    assert groups[0] == groups[1] != groups[2]


def test_a_long_text_keeps_its_language_when_it_is_cut(tmp_path):
    tokenizer, _ = translators.write("mbart", tmp_path / "model")
    model = task_class(TRANSLATE)(tmp_path / "model", "float32")
    parameters = parse_parameters(TRANSLATE, {"src_lang": "de_DE", "tgt_lang": "ro_RO"})
    [sequence] = model.encode("a goal " * 200, parameters, InputLimit(20, truncate=True))
    assert sequence.length == 20
    ends = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("de_DE")]
    assert sequence.features["input_ids"][-2:] == ends


@pytest.mark.parametrize(
    ("kind", "given", "reason"),
    [
        ("nllb", {"src_lang": "eng_Latn"}, "tgt_lang is missing; give it in the request or the endpoint"),
        (
            "nllb",
            {"src_lang": "eng_Latn", "tgt_lang": "fra"},
            "tgt_lang: got 'fra'; this model knows fra_Latn, ",
        ),
        ("m2m_100", {"src_lang": "en_XX", "tgt_lang": "fr"}, "src_lang: got 'en_XX'; .*and 95 more"),
        ("mbart", {"src_lang": "en_XX", "tgt_lang": "<unk>"}, "tgt_lang: got '<unk>'; this model knows "),
        ("mbart50", {"src_lang": "a", "tgt_lang": "ro_RO"}, "src_lang: got 'a'; this model knows "),
        ("marian", {}, 'tgt_lang is missing; .*or begin the text with such as ">>fra<<"; .*fra, spa, por'),
        ("marian", {"tgt_lang": "deu"}, "tgt_lang: got 'deu'; this model knows fra, spa, por"),
        ("marian", {"src_lang": "ell", "tgt_lang": "fra"}, "src_lang: got 'ell'; this model knows eng"),
        ("marian of one pair", {"tgt_lang": "deu"}, "tgt_lang: got 'deu'; this model knows roa"),
    ],
)
def test_a_language_that_is_not_known_or_missing_is_refused(kind, given, reason, tmp_path):
    translators.write(kind, tmp_path / "model")
    model = task_class(TRANSLATE)(tmp_path / "model", "float32")
    with pytest.raises(InvalidInputError, match=f"parameters.{reason}"):
        translated(model, [("a goal", given)])


def test_a_source_that_nobody_states_is_refused(tmp_path):
    """The tokenizer would say English."""
    translators.write("nllb", tmp_path / "model")
    file = tmp_path / "model" / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"src_lang": None}))
    model = task_class(TRANSLATE)(tmp_path / "model", "float32")
    with pytest.raises(InvalidInputError, match="parameters.src_lang is missing"):
        translated(model, [("a goal", {"tgt_lang": "fra_Latn"})])


def test_a_folder_that_states_a_language_of_no_token_is_refused(tmp_path):
    translators.write("nllb", tmp_path / "model")
    file = tmp_path / "model" / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"tgt_lang": "klingon"}))
    with pytest.raises(ModelLoadError, match="states the language 'klingon', which it does not have"):
        task_class(TRANSLATE)(tmp_path / "model", "float32")


def test_marian_has_its_target_in_front_of_the_text(tmp_path):
    tokenizer, reference = translators.write("marian", tmp_path / "model")
    model = task_class(TRANSLATE)(tmp_path / "model", "float32")
    asked = [
        *((text, {"tgt_lang": name}) for text in TEXTS for name in ("fra", "spa", ">>por<<")),
        (">>spa<< paris", {}),
        # The text goes before the endpoint.
        (">>spa<< paris", {"tgt_lang": "fra"}),
        ("paris", {"tgt_lang": "spa", "src_lang": "eng"}),
    ]
    whole = [f">>{given['tgt_lang'].strip('<>')}<< {text}" for text, given in asked[: 3 * len(TEXTS)]]
    right = [generated(tokenizer, reference, text) for text in [*whole, *[">>spa<< paris"] * 3]]
    assert len(set(right)) > len(TEXTS)
    assert translated(model, asked, alone=True) == right
    assert translated(model, asked) == right
    with pytest.raises(InvalidInputError, match="the text begins with 'deu'; this model knows fra, spa, por"):
        translated(model, [(">>deu<< paris", {})])


def test_marian_of_one_pair_needs_no_language(tmp_path):
    tokenizer, reference = translators.write("marian of one pair", tmp_path / "model")
    model = task_class(TRANSLATE)(tmp_path / "model", "float32")
    right = [generated(tokenizer, reference, text) for text in TEXTS]
    asked = [(text, {}) for text in TEXTS]
    assert translated(model, asked) == translated(model, asked, alone=True) == right


def test_t5_states_a_prefix_and_options_for_each_pair(tmp_path):
    stated = {"task_specific_params": translators.PAIRS}
    tokenizer, reference = translators.write("t5", tmp_path / "model", config=stated)
    model = task_class(TRANSLATE)(tmp_path / "model", "float32")
    german, french = ({"src_lang": "en", "tgt_lang": target} for target in ("de", "fr"))
    asked, right = [], []
    for text in TEXTS:
        asked += [(text, german), (text, {"tgt_lang": "fr"}), (text, german | {"max_new_tokens": 3})]
        asked += [(text, {"prefix": "good "}), (text, french | {"prefix": "good ", "num_beams": 2})]
        in_german, in_french = (f"translate English to {name}: {text}" for name in ("German", "French"))
        right += [
            generated(tokenizer, reference, in_german, max_new_tokens=None, max_length=9, num_beams=2),
            generated(tokenizer, reference, in_french, max_new_tokens=None, max_length=7),
            generated(tokenizer, reference, in_german, max_new_tokens=3, num_beams=2),
            generated(tokenizer, reference, f"good {text}"),
            generated(tokenizer, reference, f"good {text}", max_new_tokens=None, max_length=7, num_beams=2),
        ]
    assert translated(model, asked, alone=True) == right
    assert translated(model, asked) == right


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, "tgt_lang is missing; this model knows en to de, en to fr; parameters.prefix may say"),
        ({"src_lang": "en"}, "tgt_lang is missing; this model knows en to de, en to fr"),
        ({"tgt_lang": "ro"}, "tgt_lang: got 'ro'; this model knows (de, fr|fr, de)"),
        ({"src_lang": "de", "tgt_lang": "fr"}, "src_lang: got 'de'; this model knows en"),
    ],
)
def test_a_pair_that_the_folder_does_not_state_is_refused(given, reason, tmp_path):
    translators.write("t5", tmp_path / "model", config={"task_specific_params": translators.PAIRS})
    model = task_class(TRANSLATE)(tmp_path / "model", "float32")
    with pytest.raises(InvalidInputError, match=f"parameters.{reason}"):
        translated(model, [("a goal", given)])


@pytest.mark.parametrize("name", ["translation", "translation_en_to_de"])
def test_what_a_folder_states_for_all_requests_needs_no_language(name, tmp_path):
    section = {"prefix": "good ", "max_length": 5, "bad_words_ids": [[40], [41]]}
    stated = {"task_specific_params": {name: section}}
    tokenizer, reference = translators.write("t5", tmp_path / "model", config=stated)
    model = task_class(TRANSLATE)(tmp_path / "model", "float32")
    options = {"max_new_tokens": 6, "bad_words_ids": [[40], [41]]}
    right = [generated(tokenizer, reference, f"good {text}", **options) for text in TEXTS]
    asked = [(text, {"max_new_tokens": 6}) for text in TEXTS]
    assert translated(model, asked) == right
    known = ["de"] if name != "translation" else []
    assert model.description["target_languages"] == known
    with pytest.raises(InvalidInputError, match="parameters.tgt_lang: got 'fr'; "):
        translated(model, [("a goal", {"tgt_lang": "fr"})])


@pytest.mark.parametrize(
    ("section", "reason"),
    [
        ({"num_beams": "four"}, "translation_en_to_de: parameters.num_beams: got 'four'"),
        ({"bad_words_ids": [[4]]}, r"translation_en_to_de.bad_words_ids: got \[\[4\]\]; must be text"),
        ("good", "translation_en_to_de: got 'good'; must be an object"),
    ],
)
def test_nonsense_for_a_pair_is_refused(section, reason, tmp_path):
    pairs = translators.PAIRS | {"translation_en_to_de": section}
    translators.write("t5", tmp_path / "model", config={"task_specific_params": pairs})
    with pytest.raises(ModelLoadError, match=reason):
        task_class(TRANSLATE)(tmp_path / "model", "float32")


def test_another_dtype_is_proved_with_languages(tmp_path):
    translators.write("nllb", tmp_path / "model")
    model = task_class(TRANSLATE)(tmp_path / "model", "bfloat16")
    assert model.description["proof"]["texts"] > 1
    assert model.warmup_parameters["tgt_lang"] == "zho_Hans"
    with torch.inference_mode():
        assert len(translated(model, asked_in(LANGUAGES["nllb"]))) == 4 * len(TEXTS)
