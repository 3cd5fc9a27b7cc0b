"""Write the folder of a text classifier made from the encoder and labelled texts; must not choose them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoTokenizer, BertForSequenceClassification, PreTrainedTokenizerBase

from models.cards import classifier_card
from models.examples import Example, read_columns, read_examples
from models.packages import encoder_folder
from models.score import Score, require_good_score, score_answers, write_scores
from models.training import SEED, fine_tune, predict

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Classifier:
    """What one classifier learns: its labels and how a lexicon becomes training texts."""

    name: str
    labels: tuple[str, ...]
    find_lexicon: Callable[[], Path]
    lexicon_origin: str
    training_examples: Callable[[Iterable[Sequence[str]]], list[Example]]


def make_classifier(classifier: Classifier, folder: Path) -> None:
    """Train the classifier, refuse it if it scores low, and write it with its card."""
    tokenizer = AutoTokenizer.from_pretrained(encoder_folder())
    model = _untrained(classifier.labels)
    fine_tune(model, tokenizer, classifier.training_examples(read_columns(classifier.find_lexicon())))
    heldout = _score(classifier, "heldout", model, tokenizer)
    development = _score(classifier, "development", model, tokenizer)
    require_good_score(classifier.name, heldout)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_scores(folder, heldout, development)
    card = classifier_card(classifier.name, classifier.lexicon_origin, heldout, development)
    (folder / "README.md").write_text(card, encoding="utf-8")


def _untrained(labels: Sequence[str]) -> BertForSequenceClassification:
    # The new classifier starts from random weights, which must be the same in every build.
    torch.manual_seed(SEED)
    return BertForSequenceClassification.from_pretrained(
        encoder_folder(),
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )


def _score(
    classifier: Classifier,
    list_name: str,
    model: BertForSequenceClassification,
    tokenizer: PreTrainedTokenizerBase,
) -> Score:
    examples = read_examples(FOLDER / list_name / f"{classifier.name}.tsv", classifier.labels)
    return score_answers(examples, predict(model, tokenizer, [example.text for example in examples]))
