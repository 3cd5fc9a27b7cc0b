"""Turn the rated words of the VADER lexicon into labelled texts; must not touch models or files.

A lexicon has words but no sentences, so each word is put into plain sentence frames, some of which
negate it.
"""

from collections.abc import Iterable, Sequence
from random import Random
from typing import Final

from models.examples import Example

NEGATIVE: Final = "NEGATIVE"
POSITIVE: Final = "POSITIVE"
LABELS: Final = (NEGATIVE, POSITIVE)

# Words rated closer to neutral than this say too little for a choice between two labels.
LEAST_RATING: Final = 1.0
PLAIN_FRAMES_PER_WORD: Final = 2
SEED: Final = 7

PLAIN_FRAMES: Final = (
    "{word}",
    "It was {word}.",
    "This is {word}.",
    "I feel {word}.",
    "The service was very {word}.",
    "What a {word} day.",
    "They {word} us.",
    "There was so much {word}.",
)
NEGATED_FRAMES: Final = (
    "It was not {word}.",
    "This is not {word} at all.",
    "I do not feel {word}.",
    "The service was not {word}.",
    "There was no {word}.",
    "They never {word} us.",
    "It did not {word}.",
    "Nothing about it was {word}.",
)


def rated_words(rows: Iterable[Sequence[str]]) -> dict[str, str]:
    """Map each clearly rated word of the lexicon's `word, mean rating, ...` rows to its label."""
    words = {}
    for word, rating, *_ in rows:
        # The lexicon also rates emoticons and slang with digits, which the tokenizer tears apart.
        if word.isalpha() and word.islower() and abs(float(rating)) >= LEAST_RATING:
            words[word] = POSITIVE if float(rating) > 0 else NEGATIVE
    return words


def training_examples(rows: Iterable[Sequence[str]]) -> list[Example]:
    """Put every clearly rated word into a few frames, drawn with a fixed seed."""
    random = Random(SEED)
    examples = []
    for word, label in rated_words(rows).items():
        opposite = POSITIVE if label == NEGATIVE else NEGATIVE
        plain = random.sample(PLAIN_FRAMES, PLAIN_FRAMES_PER_WORD)
        examples += [Example(label, frame.format(word=word)) for frame in plain]
        examples.append(Example(opposite, random.choice(NEGATED_FRAMES).format(word=word)))
    return examples
