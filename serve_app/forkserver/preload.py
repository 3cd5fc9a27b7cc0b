"""What is imported before workers are forked, and how that leaves no trace that all of them would share."""

import importlib
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

# Serve's own actors and the builds of applications need only these.
SERVE_MODULES: Final = (
    "ray.serve",
    "ray.serve._private.replica",
    "ray.serve._private.controller",
    "ray.serve._private.proxy",
    "serve_app.app",
    "serve_app.gateway",
)
# A model's replica needs these too. All models import much the same; BERT stands for them.
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
    """Import `modules`; what is missing here is missing in the workers too, and they say so better."""
    for module in modules:
        started = time.monotonic()
        try:
            importlib.import_module(module)
        except Exception:
            logger.exception("%s cannot be imported in advance", module)
        else:
            logger.info("imported %s in %.2f s", module, time.monotonic() - started)


class _ActorClassIds:
    """Stands in for Ray's ActorClassID and does not draw from Ray's generator."""

    @staticmethod
    def from_random() -> Any:
        """Return an identifier made of the system's random bytes."""
        from ray._raylet import ActorClassID

        return ActorClassID(os.urandom(ActorClassID.size()))


@contextmanager
def ray_ids_untouched() -> Iterator[None]:
    """Let modules with actor classes be imported without the use of Ray's generator of identifiers."""
    import ray.actor

    original = ray.actor.ActorClassID
    ray.actor.ActorClassID = _ActorClassIds
    try:
        yield
    finally:
        ray.actor.ActorClassID = original


def has_own_ids() -> bool:
    """Return whether processes forked now make different identifiers for Ray.

    Ray's generator is in its C++ part and cannot be seeded. Once it has been used, all children would draw
    the same identifiers, and overwrite each other's objects.
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
