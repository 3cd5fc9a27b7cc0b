"""summarization: an encoder-decoder model shortens a text, as the pipeline of transformers 4 did."""

from typing import ClassVar

from serve_app.contract import Task
from serve_app.engine.base import Output
from serve_app.tasks.parts.stated import StatedGeneration


class Summarization(StatedGeneration):
    """A model that was trained for summaries, or for several tasks that a prefix tells apart."""

    task: ClassVar = Task.SUMMARIZATION
    outputs: ClassVar = (Output("summary_text", "BYTES", (-1,)),)
