"""Check the parts of the sample-model build that need neither torch nor training."""

import ast
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

import models
from endpoint_operator.local.manifests import read_manifest
from hack.images.project_images import SAMPLES
from hack.paths import PROJECT
from models import build, sentiment, topic
from models.catalogue import RECIPES
from models.examples import Example, read_columns, read_examples
from models.packages import empath_lexicon, smollm2_file, smollm2_licence, vader_lexicon
from models.recipe import Recipe, fingerprint, is_up_to_date, publish
from models.score import LowScoreError, Score, read_heldout, require_good_score, score_answers, write_scores

FOLDER = Path(models.__file__).parent
LABELS = {"sentiment": sentiment.LABELS, "topic": topic.LABELS}
VERSIONS = {"torch": "1"}


def listed(name: str, kind: str) -> list[Example]:
    return read_examples(FOLDER / kind / f"{name}.tsv", LABELS[name])


def bare(examples: Iterable[Example]) -> set[str]:
    return {"".join(filter(str.isalnum, example.text.casefold())) for example in examples}


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    folder = tmp_path / "sources"
    (folder / "heldout").mkdir(parents=True)
    (folder / "recipe.py").write_text("one")
    (folder / "heldout" / "list.tsv").write_text("two")
    return folder


@pytest.mark.parametrize("changed", ["recipe.py", "heldout/list.tsv", "new.py"])
def test_fingerprint_changes_with_a_recipe_file(sources: Path, changed: str) -> None:
    before = fingerprint(sources, VERSIONS)
    (sources / changed).write_text("changed")
    assert fingerprint(sources, VERSIONS) != before


def test_fingerprint_changes_with_a_package_version(sources: Path) -> None:
    assert fingerprint(sources, VERSIONS) != fingerprint(sources, {"torch": "2"})


def test_fingerprint_ignores_place_time_and_other_files(sources: Path, tmp_path: Path) -> None:
    before = fingerprint(sources, VERSIONS)
    (sources / "README.md").write_text("words")
    (sources / "build").mkdir()
    (sources / "build" / "made.py").write_text("built")
    (sources / "recipe.py").touch()
    assert fingerprint(sources, VERSIONS) == before
    assert fingerprint(shutil.copytree(sources, tmp_path / "copy"), VERSIONS) == before


def write_weights(content: str, folder: Path) -> None:
    (folder / "weights").write_text(content)


def test_publish_replaces_the_whole_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    publish(folder, "first", lambda made: (made / "only-in-first").touch())
    publish(folder, "second", lambda made: write_weights("new", made))
    assert {path.name for path in folder.iterdir()} == {"weights", "recipe.json"}
    assert is_up_to_date(folder, "second")
    assert not is_up_to_date(folder, "first")
    assert list(tmp_path.iterdir()) == [folder]


def test_a_failing_build_leaves_the_old_folder_as_it_was(tmp_path: Path) -> None:
    def fail_half_way(made: Path) -> None:
        write_weights("half", made)
        raise LowScoreError("too low")

    folder = tmp_path / "model"
    publish(folder, "first", lambda made: write_weights("old", made))
    with pytest.raises(LowScoreError):
        publish(folder, "second", fail_half_way)
    assert (folder / "weights").read_text() == "old"
    assert is_up_to_date(folder, "first")
    assert list(tmp_path.iterdir()) == [folder]


def test_a_failing_rename_puts_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def refuse_the_new_folder(path: Path, target: Path) -> Path:
        if path.name.endswith(".partial"):
            raise OSError("disk gone")
        return rename(path, target)

    folder = tmp_path / "model"
    publish(folder, "first", lambda made: write_weights("old", made))
    monkeypatch.setattr(Path, "rename", refuse_the_new_folder)
    with pytest.raises(OSError, match="disk gone"):
        publish(folder, "second", lambda made: write_weights("new", made))
    assert (folder / "weights").read_text() == "old"


def test_leftovers_of_a_killed_build_are_not_published(tmp_path: Path) -> None:
    leftover = tmp_path / ".model.partial"
    leftover.mkdir()
    write_weights("half", leftover)
    publish(tmp_path / "model", "first", lambda made: None)
    assert not (tmp_path / "model" / "weights").exists()


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize("kind", ["heldout", "development"])
def test_lists_are_balanced_and_without_duplicates(name: str, kind: str) -> None:
    examples = listed(name, kind)
    counts = Counter(example.label for example in examples)
    assert set(counts) == set(LABELS[name])
    assert len(set(counts.values())) == 1
    assert len(examples) >= 20
    assert len(bare(examples)) == len(examples)


def test_sentiment_lists_contain_negation() -> None:
    negated = [example for example in listed("sentiment", "heldout") if " not " in example.text]
    assert {example.label for example in negated} == set(sentiment.LABELS)


@pytest.mark.parametrize("name", LABELS)
def test_heldout_shares_no_sentence_with_training_or_development(name: str) -> None:
    training = {
        "sentiment": lambda: sentiment.training_examples(read_columns(vader_lexicon())),
        "topic": lambda: topic.training_examples(read_columns(empath_lexicon())),
    }[name]()
    heldout = bare(listed(name, "heldout"))
    assert heldout.isdisjoint(bare(training))
    assert heldout.isdisjoint(bare(listed(name, "development")))


def test_training_examples_are_the_same_every_time() -> None:
    rows = [["great", "3.1"], ["awful", "-2.0"], ["meh", "-0.3"], [":-)", "2.0"]]
    first = sentiment.training_examples(rows)
    assert first == sentiment.training_examples(rows)
    assert not any("meh" in example.text or ":" in example.text for example in first)
    flipped = [example for example in first if " no" in example.text.lower() and "great" in example.text]
    assert {example.label for example in flipped} <= {sentiment.NEGATIVE}


def test_a_word_of_two_topics_belongs_to_neither() -> None:
    names = [name for group in topic.CATEGORIES.values() for name in group]
    words = topic.topic_words(
        [[name, "shared", "911", f"only{'x' * index}"] for index, name in enumerate(names)]
    )
    assert all(word.startswith("only") for group in words.values() for word in group)


def test_gate_refuses_less_than_nine_in_ten() -> None:
    require_good_score("sentiment", Score(right=18, total=20, wrong_texts=()))
    with pytest.raises(LowScoreError, match=r"'sentiment' got 17/20 .* 90%"):
        require_good_score("sentiment", Score(right=17, total=20, wrong_texts=()))


def test_score_counts_and_is_read_back(tmp_path: Path) -> None:
    examples = [Example("a", "first"), Example("b", "second")]
    score = score_answers(examples, ["a", "a"])
    assert score == Score(right=1, total=2, wrong_texts=("second",))
    assert read_heldout(tmp_path) is None
    write_scores(tmp_path, heldout=score, development=score)
    assert read_heldout(tmp_path) == "1/2"


@pytest.mark.parametrize(
    ("line", "message"),
    [("no tab", "list.tsv line 1: expected"), ("c\ttext", "label 'c' is not one of a, b")],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "list.tsv"
    path.write_text(line)
    with pytest.raises(ValueError, match=message):
        read_examples(path, ["a", "b"])


def test_build_skips_what_is_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = Recipe("tiny", (), lambda made: write_weights("built", made))
    monkeypatch.setattr(build, "RECIPES", (recipe,))
    outcomes = []
    for _ in range(2):
        assert build.main(["--out", str(tmp_path)]) == 0
        outcomes.append(capsys.readouterr().out)
    assert outcomes[0].startswith("tiny: built (")
    assert outcomes[1].startswith("tiny: up to date (")


def refuse(made: Path) -> None:
    raise LowScoreError("model 'tiny' is bad")


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe("tiny", (), refuse), "error: model 'tiny' is bad\n"),
        (Recipe("tiny", ("no-such-package",), refuse), "error: Python package 'no-such-package' is not"),
    ],
)
def test_build_fails_with_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    recipe: Recipe,
    message: str,
) -> None:
    monkeypatch.setattr(build, "RECIPES", (recipe,))
    assert build.main(["--out", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.count("\n") == 1
    assert not (tmp_path / "tiny").exists()


@pytest.mark.parametrize(
    "path", sorted((PROJECT / "manifests" / "samples").glob("*.yaml")), ids=lambda path: path.stem
)
def test_a_sample_manifest_is_valid_and_its_model_is_built(path: Path) -> None:
    read = read_manifest(path)
    assert read.errors == ()
    [located] = read.endpoints
    assert located.endpoint.name == path.stem
    uri = located.endpoint.spec.model.uri
    assert uri.removeprefix("file:///models/") in {recipe.name for recipe in RECIPES}


def test_the_image_of_the_cluster_on_this_machine_has_every_model() -> None:
    assert sorted(SAMPLES) == sorted(recipe.name for recipe in RECIPES)


def test_the_chat_models_package_has_its_weights_and_its_licence() -> None:
    with smollm2_file().open("rb") as weights:
        assert weights.read(4) == b"GGUF"
    assert "Apache License" in smollm2_licence().read_text(encoding="utf-8")


def test_an_up_to_date_check_imports_no_torch() -> None:
    heavy = {"torch", "transformers", "tokenizers"}
    for module in ("build", "catalogue", "recipe", "packages", "score", "examples", "sentiment", "topic"):
        tree = ast.parse((FOLDER / f"{module}.py").read_text(encoding="utf-8"))
        names = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
        names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert heavy.isdisjoint(name.partition(".")[0] for name in names)
