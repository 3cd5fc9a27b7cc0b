"""Turn the topic words of the Empath lexicon into labelled texts; must not touch models or files.

A lexicon has words but no sentences, so words of one topic are put together into sentence frames.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from random import Random
from typing import Final

from models.examples import Example

# Each label and the categories of the lexicon that it is made of.
CATEGORIES: Final = {
    "business": ("business", "banking", "economics"),
    "food": ("cooking", "eating", "restaurant"),
    "health": ("health", "medical_emergency"),
    "music": ("music", "musical"),
    "politics": ("politics", "government"),
    "sports": ("sports",),
    "technology": ("computer", "programming", "technology", "internet"),
    "travel": ("tourism", "air_travel", "traveling", "vacation"),
    "weather": ("weather",),
}
LABELS: Final = tuple(CATEGORIES)
EXAMPLES_PER_LABEL: Final = 500
SEED: Final = 7

FRAMES: Final = (
    "{first}",
    "{first}, {second} and {third}",
    "It is about {first} and {second}.",
    "We talked about the {first} and the {second}.",
    "She said the {first} was good.",
    "They {first} with the {second}.",
)


def topic_words(rows: Iterable[Sequence[str]]) -> dict[str, list[str]]:
    """Return the words of each label; a word of two labels belongs to neither."""
    categories = {name: words for name, *words in rows}
    groups = {
        label: {word for name in names for word in categories[name] if word.isalpha()}
        for label, names in CATEGORIES.items()
    }
    label_count = Counter(word for group in groups.values() for word in group)
    return {
        label: sorted(word for word in group if label_count[word] == 1) for label, group in groups.items()
    }


def training_examples(rows: Iterable[Sequence[str]]) -> list[Example]:
    """Put the words of every label into frames, each word about equally often, with a fixed seed."""
    random = Random(SEED)
    return [
        Example(label, _fill_frame(random, words, words[number % len(words)]))
        for label, words in topic_words(rows).items()
        for number in range(EXAMPLES_PER_LABEL)
    ]


def _fill_frame(random: Random, words: Sequence[str], first: str) -> str:
    second, third = random.sample(words, 2)
    return random.choice(FRAMES).format(first=first, second=second, third=third)
