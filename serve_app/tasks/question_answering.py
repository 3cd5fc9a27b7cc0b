"""question-answering: the part of a context that answers a question.

transformers 5 has no pipeline for it. The algorithm is that of the pipeline in version 4.57.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

import torch
from tokenizers import Encoding
from transformers import AutoModelForQuestionAnswering

from serve_app.contract import Task
from serve_app.engine.base import (
    EncodedSequence,
    InputLimit,
    ModelLoadError,
    Output,
    Prediction,
    Progress,
    TextPair,
)
from serve_app.loading.proof import Changed, answer_changed, rounding_changed
from serve_app.parameters import QuestionAnsweringParameters
from serve_app.tasks.parts.spans import MASKED, NO_NULL_SCORE, best_spans
from serve_app.tasks.parts.windows import Size, Splitter, Window, question_first
from serve_app.tasks.pretrained_task import PretrainedTask

_PROOF_QUESTION: Final = "What happened?"


class QuestionAnswering(PretrainedTask):
    """A model with a head for the start and the end of an answer."""

    task: ClassVar = Task.QUESTION_ANSWERING
    auto_class = AutoModelForQuestionAnswering
    input_names: ClassVar = ("question", "context")
    inputs_required: ClassVar = 2
    outputs: ClassVar = (
        Output("answer", "BYTES", (-1,)),
        Output("score", "FP32", (-1,)),
        Output("start", "INT64", (-1,)),
        Output("end", "INT64", (-1,)),
    )

    def load_extras(self, folder: Path) -> None:
        if not self._pretrained.hf_tokenizer.is_fast:
            raise ModelLoadError(f"{folder} has no tokenizer.json, which {self.task} needs")
        self._splitter = Splitter(self._pretrained)

    def drop(self) -> None:
        super().drop()
        self.__dict__.pop("_splitter", None)

    @property
    def warmup_text(self) -> TextPair:
        return TextPair("ready", "ready")

    def proof_text(self, text: str) -> TextPair:
        return TextPair(_PROOF_QUESTION, text)

    def proof_sequences(self, texts: Sequence[str], max_tokens: int) -> list[EncodedSequence]:
        """Return the first window of each text, as large as the model takes it."""
        size = Size.largest(max_tokens)
        return [self.grouped(self._splitter.windows(self.proof_text(each), size))[0] for each in texts]

    def sequences(
        self, text: TextPair, parameters: QuestionAnsweringParameters, limit: InputLimit
    ) -> Sequence[EncodedSequence]:
        """Return one sequence for each window of the context."""
        return self._splitter.windows(text, Size.of(parameters, limit))

    def answer_characters(
        self, text: TextPair, encoded: Sequence[EncodedSequence], parameters: QuestionAnsweringParameters
    ) -> int:
        longest_word = max(map(len, text.second.split()), default=0)
        longest = min(len(text.second), (longest_word + 1) * parameters.max_answer_len)
        return (1 + (parameters.top_k or 0)) * longest

    def run(self, batch: Sequence[EncodedSequence], progress: Progress) -> Sequence[Any]:
        """Return the logits of starts and ends, (2, tokens) for each sequence."""
        output = self._pretrained.run(self._pretrained.collate(batch))
        logits = torch.stack([output.start_logits, output.end_logits], dim=1).float().cpu()
        return [row[:, : encoded.length] for row, encoded in zip(logits, batch, strict=True)]

    def changed(self, *, exact: bool) -> Changed:
        longest = QuestionAnsweringParameters().max_answer_len
        return rounding_changed if exact else partial(answer_changed, longest=longest)

    def proof_answers(self, batch: Sequence[EncodedSequence]) -> list[torch.Tensor]:
        """Return the probabilities of starts and ends, (2, tokens) for each sequence."""
        outputs = self.forward(batch, Progress((), 0))
        return [_probabilities(*each) for each in zip(batch, outputs, strict=True)]

    def decode(
        self,
        text: TextPair,
        encoded: Sequence[EncodedSequence],
        outputs: Sequence[torch.Tensor],
        parameters: QuestionAnsweringParameters,
    ) -> Prediction:
        answers = self._answers(text.second, encoded, outputs, parameters)
        prediction = dict(answers[0]) if answers else _answer("", 0, 0, 0.0)
        if parameters.top_k is not None:
            prediction["answers"] = answers
        return prediction

    def _answers(
        self,
        context: str,
        encoded: Sequence[EncodedSequence],
        outputs: Sequence[torch.Tensor],
        parameters: QuestionAnsweringParameters,
    ) -> list[Prediction]:
        """Return the best answers of all windows, best first; equal ones have the sum of their scores."""
        wanted = parameters.top_k or 1
        # Some spans are the same in whole words.
        looked_at = wanted * 2 + 10 if parameters.align_to_words else wanted
        null_score = NO_NULL_SCORE
        found: dict[str, Prediction] = {}
        for window, logits in zip(encoded, outputs, strict=True):
            assert isinstance(window, Window)
            assert window.encoding is not None
            assert window.allowed is not None
            spans = best_spans(logits.numpy(), window.allowed, looked_at, parameters.max_answer_len)
            null_score = min(null_score, spans.null_score)
            for first, last, score in zip(spans.starts, spans.ends, spans.scores, strict=True):
                start, end = self._characters(window.encoding, first, last, parameters.align_to_words)
                answer = found.setdefault(
                    context[start:end].lower(), _answer(context[start:end], start, end, 0.0)
                )
                answer["score"] += score
        answers = list(found.values())
        if parameters.handle_impossible_answer:
            answers.append(_answer("", 0, 0, null_score))
        return sorted(answers, key=lambda each: each["score"], reverse=True)[:wanted]

    def _characters(self, encoding: Encoding, first: int, last: int, align_to_words: bool) -> tuple[int, int]:
        """Return where the tokens `first` to `last` begin and end in the context, or their whole words."""
        if align_to_words:
            sequence = 1 if question_first(self._pretrained.hf_tokenizer) else 0
            start = _word(encoding, first, sequence)
            end = _word(encoding, last, sequence)
            if start is not None and end is not None:
                return start[0], end[1]
        return encoding.offsets[first][0], encoding.offsets[last][1]


def _probabilities(encoded: EncodedSequence, logits: torch.Tensor) -> torch.Tensor:
    # A proof also has sequences that are cut, whose answers nobody looks at.
    if isinstance(encoded, Window):
        logits = logits.masked_fill(~torch.from_numpy(encoded.allowed), MASKED)
    return logits.softmax(-1)


def _word(encoding: Encoding, token: int, sequence: int) -> tuple[int, int] | None:
    """Return where the word of a token begins and ends in a text; None if the tokenizer knows no words."""
    word = encoding.token_to_word(token)
    place: tuple[int, int] | None = None if word is None else encoding.word_to_chars(word, sequence)
    return place


def _answer(answer: str, start: int, end: int, score: float) -> Prediction:
    return {"answer": answer, "score": score, "start": start, "end": end}
