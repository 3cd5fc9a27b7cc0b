"""The one table from a task to its class, by name: a class is imported only when its task is served.

Task modules import torch and transformers, so only the replica that serves a task imports its module.
"""

import os
import pkgutil
from typing import Final, cast

from serve_app.contract import Task
from serve_app.engine.base import TaskModel

# How often an OpenMP thread of torch checks for more work before it sleeps. The default of 300,000 takes
# milliseconds, during which the event loop and the node's other replicas cannot use the core. OpenMP reads
# this when torch is imported, and replicas and the fork server import this package before torch.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")

_TASKS: Final[dict[Task, str]] = {
    Task.TEXT_CLASSIFICATION: "serve_app.tasks.text_classification:TextClassification",
    Task.TOKEN_CLASSIFICATION: "serve_app.tasks.token_classification:TokenClassification",
    Task.ZERO_SHOT_CLASSIFICATION: "serve_app.tasks.zero_shot_classification:ZeroShotClassification",
    Task.FEATURE_EXTRACTION: "serve_app.tasks.feature_extraction:FeatureExtraction",
    Task.TEXT_RANKING: "serve_app.tasks.text_ranking:TextRanking",
    Task.FILL_MASK: "serve_app.tasks.fill_mask:FillMask",
    Task.TEXT_GENERATION: "serve_app.tasks.text_generation:TextGeneration",
    Task.TEXT2TEXT_GENERATION: "serve_app.tasks.text2text_generation:Text2TextGeneration",
    Task.SUMMARIZATION: "serve_app.tasks.summarization:Summarization",
    Task.TRANSLATION: "serve_app.tasks.translation:Translation",
    Task.QUESTION_ANSWERING: "serve_app.tasks.question_answering:QuestionAnswering",
}


def task_class(task: Task) -> type[TaskModel]:
    """Return the class for `task`; this imports torch and transformers.

    Its constructor takes a folder and a dtype and loads the model. It raises ModelLoadError if the folder
    holds no model for the task.
    """
    return cast(type[TaskModel], pkgutil.resolve_name(_TASKS[task]))
