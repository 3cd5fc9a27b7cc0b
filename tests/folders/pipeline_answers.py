"""Write what the pipeline of transformers 4.57 answers to golden questions, into question_answering.json.

transformers 5 has no such pipeline, so this is a program for an environment of its own:

    python -c "from tests.folders import pipeline_answers as it; it.write_folders('/tmp/readers')"
    python tests/folders/pipeline_answers.py /tmp/readers     # with transformers 4.57

A change of the cases below, or of readers.py, needs both again.
"""

import json
import sys
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("question_answering.json")

SHORT = "Ada wrote this in London."
LONG = (
    "The goal was scored in London. Ada wrote this great example in Paris, and politics is bad. "
    "Sports are good; the example was scored. This is a bad goal, a great goal, the goal in Paris! "
    "Ada was in London, and ada wrote politics. A good example is a great example of the sports."
)
UNICODE = "Zoë écrit à «Łódź» — 東京 is great 😀 good. Straße, naïve café: the goal ½ was in ПАРИЖ."
EQUAL = "goal Goal GOAL goal. The goal, the Goal."
ONE_WORD = "goalscoredinlondonbyadawhowrotethisgreatexampleofsportsandpoliticsinparisforgood"
QUESTIONS = ["Who wrote this?", "where was the goal scored in", "Was Zoë in 東京?"]
LONG_QUESTION = "Is it true that ada wrote a great example of sports, was it good ?"
# Question, context, parameters.
CASES: list[tuple[str, str, dict[str, Any]]] = [
    (QUESTIONS[0], SHORT, {}),
    (QUESTIONS[0], SHORT, {"top_k": 1}),
    (QUESTIONS[0], SHORT, {"top_k": 3}),
    (QUESTIONS[0], SHORT, {"top_k": 3, "align_to_words": False}),
    (QUESTIONS[1], SHORT, {"handle_impossible_answer": True}),
    (QUESTIONS[1], SHORT, {"handle_impossible_answer": True, "top_k": 4}),
    (QUESTIONS[1], LONG, {}),
    (QUESTIONS[0], LONG, {"top_k": 5}),
    (QUESTIONS[1], LONG, {"top_k": 5, "align_to_words": False}),
    (QUESTIONS[1], LONG, {"top_k": 8, "doc_stride": 8}),
    (QUESTIONS[1], LONG, {"top_k": 3, "doc_stride": 0}),
    (QUESTIONS[0], LONG, {"top_k": 3, "max_seq_len": 40, "doc_stride": 10}),
    (QUESTIONS[0], LONG, {"max_answer_len": 1, "top_k": 2}),
    (QUESTIONS[0], LONG, {"max_answer_len": 40}),
    (QUESTIONS[0], LONG, {"handle_impossible_answer": True, "top_k": 2}),
    (LONG_QUESTION, LONG, {"top_k": 2, "doc_stride": 3}),
    (QUESTIONS[2], UNICODE, {}),
    (QUESTIONS[2], UNICODE, {"top_k": 4}),
    (QUESTIONS[2], UNICODE, {"top_k": 4, "align_to_words": False, "max_answer_len": 6}),
    (QUESTIONS[2], UNICODE * 3, {"top_k": 6, "handle_impossible_answer": True}),
    (QUESTIONS[1], EQUAL, {"top_k": 4, "max_answer_len": 2}),
    (QUESTIONS[1], EQUAL * 4, {"top_k": 6}),
    (QUESTIONS[0], ONE_WORD, {"top_k": 2, "doc_stride": 4}),
    (QUESTIONS[0], "a", {"handle_impossible_answer": True, "top_k": 2}),
    (QUESTIONS[0], "  paris  \n\t ada\u00a0wrote ", {"top_k": 2}),
]
KINDS = ("words", "bytes", "left", "no-cls", "metaspace")


def write_folders(root: str) -> None:
    """Write the models, with transformers 5."""
    from tests.folders import readers

    for kind in KINDS:
        readers.write(kind, Path(root) / kind)


def answers(root: Path) -> list[dict[str, Any]]:
    """Return the pipeline's answers to each case, a list for each; none where the pipeline fails."""
    from transformers import PreTrainedTokenizerFast, pipeline

    found = []
    for kind in KINDS:
        # The class that transformers 5 states is not there yet.
        tokenizer = PreTrainedTokenizerFast.from_pretrained(root / kind)
        ask = pipeline("question-answering", model=str(root / kind), tokenizer=tokenizer, device="cpu")
        for question, context, parameters in CASES:
            try:
                made = ask(question=question, context=context, **parameters)
            except BaseException as error:
                print(kind, parameters, type(error), str(error)[:80], file=sys.stderr)
                continue
            case = {"kind": kind, "question": question, "context": context, "parameters": parameters}
            found.append({**case, "answers": made if isinstance(made, list) else [made]})
    return found


def spans() -> list[dict[str, Any]]:
    """Return what the pipeline makes of logits."""
    import numpy as np
    from transformers.pipelines.question_answering import select_starts_ends

    random = np.random.RandomState(7)
    found = []
    for tokens, count, longest in [
        (9, 1, 15),
        (12, 3, 4),
        (30, 12, 15),
        (48, 5, 2),
        (5, 40, 3),
        (20, 1, 1),
    ] * 2:
        logits = np.round(random.standard_normal((2, tokens)) * 4, 3).astype(np.float32)
        allowed = random.rand(tokens) > 0.4
        allowed[0] = tokens % 2 == 0
        allowed[-1] = True
        starts, ends, scores, null = select_starts_ends(
            logits[:1], logits[1:], [[not each for each in allowed]], None, 1000000, count, True, longest
        )
        found.append(
            {
                "logits": logits.tolist(),
                "allowed": allowed.tolist(),
                "count": count,
                "longest": longest,
                "spans": [[int(s), int(e), float(x)] for s, e, x in zip(starts, ends, scores, strict=True)],
                "null_score": float(null),
            }
        )
    return found


if __name__ == "__main__":
    document = {"answers": answers(Path(sys.argv[1])), "spans": spans()}
    FILE.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
