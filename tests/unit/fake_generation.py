"""An engine that generates words without a model: the test says which parts come, and when."""

import asyncio
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

from serve_app.contract import ModelArgs, Task, UserConfig
from serve_app.engine.batch_engine import BatchEngine
from serve_app.engine.generation import Chat, FinishReason, GeneratedToken, Part, TokenScore
from serve_app.http.errors import InvalidInputError
from serve_app.parameters import InvalidParameterError, parse_parameters
from tests.unit.fake_model import FakeModel

ARGS = ModelArgs(name="chat", uri="file:///models/chat", task=Task.TEXT_GENERATION)


def token(number, text):
    top = (TokenScore(number, text, -0.5), TokenScore(number + 100, "other", -1.5))
    return GeneratedToken(number, text, -0.5, top)


def parts_of(*words, reason=FinishReason.END_TOKEN):
    """Return a part for each word, and a last one for the token that ends the text."""
    parts = [Part(word, (token(number, word),)) for number, word in enumerate(words)]
    return [*parts, Part("", (token(99, ""),), reason)]


HELLO = parts_of("Hello", " there", " \U0001f44b")


@dataclass
class FakeGeneration:
    """One continuation; of what is no part, an exception is raised, and a float or an event is waited for."""

    parts: list
    prompt_tokens: int
    cached_tokens: int = 2
    generated_tokens: int = 0
    closed: bool = False
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def __aiter__(self):
        for part in self.parts:
            self.begun.set()
            if isinstance(part, Exception):
                raise part
            if isinstance(part, asyncio.Event):
                await part.wait()
            elif isinstance(part, float):
                await asyncio.sleep(part)
            else:
                assert not self.closed
                self.generated_tokens += len(part.tokens)
                yield part

    async def aclose(self):
        self.closed = True


class FakeEngine(BatchEngine):
    """Imitates the engine of generation; parameters are checked as there.

    `parts` are those of each continuation, and `refusal` is raised before one begins.
    """

    def __init__(self, parts=HELLO, args=ARGS, refusal=None):
        super().__init__(args, FakeModel(), UserConfig())
        self.parts = parts
        self.refusal = refusal
        self.requests = []
        self.generations = []

    async def generate(self, request):
        if self.refusal:
            raise self.refusal
        try:
            parse_parameters(self.args.task, {}, request.parameters)
        except InvalidParameterError as error:
            raise InvalidInputError(str(error)) from error
        self._require_places(request)
        self._require_room(request, request.bounded(request.parameters.get("max_new_tokens", 1)))
        if request.prompt == "":
            raise InvalidInputError("the text is empty")
        self.requests.append(request)
        prompt = request.prompt.messages if isinstance(request.prompt, Chat) else request.prompt
        words = prompt.split() if isinstance(prompt, str) else prompt
        parts = [self._asked(request, part) for part in self.parts]
        self.generations.append(FakeGeneration(parts, len(words)))
        return self.generations[-1]

    def _asked(self, request, part):
        """Return the part with as many of the best tokens as were asked for."""
        if not isinstance(part, Part):
            return part
        top = request.top_logprobs
        if top is None:
            return replace(
                part, tokens=tuple(GeneratedToken(each.id, each.text, 0.0) for each in part.tokens)
            )
        return replace(part, tokens=tuple(replace(each, top=each.top[:top]) for each in part.tokens))


def service(*arguments, **settings):
    """Return an engine as tests of protocols have it."""
    return SimpleNamespace(engine=FakeEngine(*arguments, **settings))
