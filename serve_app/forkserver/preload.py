"""Import modules before workers are forked, without state that the workers must not share."""

import importlib
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

# All that Serve's own actors and the builds of applications need.
SERVE_MODULES: Final = (
    "ray.serve",
    "ray.serve._private.replica",
    "ray.serve._private.controller",
    "ray.serve._private.proxy",
    "serve_app.app",
    "serve_app.gateway",
)
# A model's replica needs these too. Other architectures import nearly the same modules as BERT.
MODEL_MODULES: Final = (
    "serve_app.tasks.text_classification",
    "serve_app.tasks.token_classification",
    "serve_app.tasks.feature_extraction",
    "serve_app.tasks.text_generation",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.bert.modeling_bert",
    "serve_app.encoders.torchscript_warmup",
)

logger = logging.getLogger(__name__)


def preload(modules: Sequence[str]) -> None:
    """Import `modules`. A failure is only logged: a worker that needs the module reports it better."""
    for module in modules:
        started = time.monotonic()
        try:
            importlib.import_module(module)
        except Exception:
            logger.exception("%s cannot be imported in advance", module)
        else:
            logger.info("imported %s in %.2f s", module, time.monotonic() - started)


class _ActorClassIds:
    """Replaces Ray's ActorClassID, and makes identifiers without Ray's random generator."""

    @staticmethod
    def from_random() -> Any:
        from ray._raylet import ActorClassID

        return ActorClassID(os.urandom(ActorClassID.size()))


@contextmanager
def ray_ids_untouched() -> Iterator[None]:
    """Import modules with actor classes in this block, without a use of Ray's generator of identifiers."""
    import ray.actor

    original = ray.actor.ActorClassID
    ray.actor.ActorClassID = _ActorClassIds
    try:
        yield
    finally:
        ray.actor.ActorClassID = original


def has_own_ids() -> bool:
    """Return whether processes that are forked now make different identifiers for Ray.

    Ray's generator is in its C++ code and cannot be seeded. If it has been used before the fork, all children
    make the same identifiers and overwrite each other's objects.
    """
    from ray import ObjectRef

    drawn = set()
    for _ in range(2):
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.write(writer, ObjectRef.from_random().binary())
            os._exit(0)
        os.close(writer)
        drawn.add(os.read(reader, 64))
        os.close(reader)
    return len(drawn) == 2
