"""Which place a sequence gets, and what is known there."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from serve_app.engine.continuous.places import WORTH_COPYING, Places, common_prefix

MOST = 4
BUDGET = 150

# Few tokens, and runs of one token, so that prompts have much in common.
prompts = st.lists(st.tuples(st.integers(0, 1), st.integers(1, 30)), min_size=1, max_size=4).map(
    lambda runs: [token for token, times in runs for _ in range(times)]
)


@given(prompts, prompts)
def test_a_common_prefix_is_as_long_as_both_agree(one, other):
    length = common_prefix(one, other)
    assert one[:length] == other[:length]
    assert length == min(len(one), len(other)) or one[length] != other[length]


class Machine(RuleBasedStateMachine):
    """Sequences come and go in places whose tokens the test keeps by itself."""

    def __init__(self):
        super().__init__()
        self.places = Places()
        self.memory = {}
        self.running = {}
        # Places that keep what a sequence has left, oldest first.
        self.kept = []
        self.count = MOST

    @precondition(lambda self: len(self.running) < self.count)
    @rule(prompt=prompts, computed=st.integers(0, 5))
    def begins(self, prompt, computed):
        running = {place: self.memory[place] for place in self.running}
        start = self.places.start(prompt, running, self.count)
        assert start.place not in self.running
        assert 0 <= start.place < self.count
        assert start.known < len(prompt)
        source = start.place if start.source is None else start.source
        assert self.memory.get(source, [])[: start.known] == prompt[: start.known]
        if start.source is not None:
            assert start.known >= WORTH_COPYING
            # The oldest one makes room, and only if there is no empty one.
            assert start.place not in self.kept or start.place == self.oldest()
        if start.place in self.kept:
            self.kept.remove(start.place)
        self.memory[start.place] = prompt[: start.known + computed]
        self.running[start.place] = prompt

    def oldest(self):
        return next(place for place in self.kept if place < self.count)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), whole=st.booleans())
    def ends(self, data, whole):
        place = data.draw(st.sampled_from(sorted(self.running)))
        prompt = self.running.pop(place)
        tokens = [*prompt, 7, 8, 9] if whole else self.memory[place]
        self.memory[place] = tokens
        self.places.keep(place, tokens)
        if len(tokens) >= WORTH_COPYING:
            self.kept.append(place)
        else:
            self.memory[place] = []

    @rule(budget=st.integers(0, BUDGET))
    def drops(self, budget):
        tokens = [len(self.memory[place]) for place in self.kept]
        dropped = list(self.places.drop(budget))
        assert dropped == self.kept[: len(dropped)]
        assert sum(tokens[len(dropped) :]) <= budget
        # None is given up without need.
        assert not dropped or sum(tokens[len(dropped) - 1 :]) > budget
        for place in dropped:
            self.kept.remove(place)
            self.memory[place] = []

    @rule(more=st.integers(0, 3))
    def limits_change(self, more):
        self.count = max(1, len(self.running) + more)

    @invariant()
    def what_is_kept_is_counted(self):
        assert self.places.kept_tokens == sum(len(self.memory[place]) for place in self.kept)


TestPlaces = Machine.TestCase


def test_a_prompt_goes_on_where_it_is_known():
    places = Places()
    places.keep(0, [1] * 40)
    places.keep(1, [2] * 40)
    start = places.start([2] * 50, {}, 4)
    assert (start.place, start.known, start.source) == (1, 40, None)


def test_a_short_beginning_of_a_long_text_is_copied_and_the_text_stays():
    places = Places()
    places.keep(0, [*[1] * 20, *[2] * 100])
    start = places.start([*[1] * 20, 3], {}, 4)
    assert (start.place, start.known, start.source) == (1, 20, 0)
    assert places.kept_tokens == 120


def test_what_is_computed_in_a_running_one_is_copied():
    start = Places().start([1] * 30, {0: [1] * 20}, 4)
    assert (start.place, start.known, start.source) == (1, 20, 0)


def test_a_few_tokens_are_not_kept():
    """A health check takes no place from what others may go on from."""
    places = Places()
    places.keep(0, [1] * 40)
    for _ in range(10):
        place = places.start([2, 3], {}, 4).place
        places.keep(place, [2, 3, 4])
    assert places.start([1] * 50, {}, 4).known == 40


def test_the_last_token_of_a_prompt_is_never_known():
    places = Places()
    places.keep(0, [1] * 40)
    assert places.start([1] * 40, {}, 1).known == 39


def test_no_more_is_given_up_than_one_place_at_a_time():
    places = Places()
    places.keep(1, [1] * 40)
    places.keep(0, [2] * 40)
    assert places.start([3] * 40, {}, 2).place == 1
    assert places.kept_tokens == 40
