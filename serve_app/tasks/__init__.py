"""The one table from task to code; naming a class here does not import it.

Task modules import torch and transformers, so only the replica that serves a task imports its module.
"""

import os
import pkgutil
from typing import Final, cast

from serve_app.contract import Task
from serve_app.engine.base import TaskModel

# How often a thread of torch looks for more work before it sleeps. OpenMP's default of 300,000 takes
# milliseconds, in which it keeps a core from the event loop and from the other replicas of the node. OpenMP
# reads it when torch is imported, and whatever imports torch here imports this package first.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")

_TASKS: Final[dict[Task, str]] = {
    Task.TEXT_CLASSIFICATION: "serve_app.tasks.text_classification:TextClassification",
    Task.TOKEN_CLASSIFICATION: "serve_app.tasks.token_classification:TokenClassification",
    Task.ZERO_SHOT_CLASSIFICATION: "serve_app.tasks.zero_shot_classification:ZeroShotClassification",
    Task.FEATURE_EXTRACTION: "serve_app.tasks.feature_extraction:FeatureExtraction",
    Task.FILL_MASK: "serve_app.tasks.fill_mask:FillMask",
    Task.TEXT_GENERATION: "serve_app.tasks.text_generation:TextGeneration",
    Task.TEXT2TEXT_GENERATION: "serve_app.tasks.text2text_generation:Text2TextGeneration",
}


def task_class(task: Task) -> type[TaskModel]:
    """Return the class for `task`; this imports torch and transformers.

    To make one from a folder and a dtype loads the model, and raises ModelLoadError with a sentence if the
    folder does not hold such a model.
    """
    return cast(type[TaskModel], pkgutil.resolve_name(_TASKS[task]))
