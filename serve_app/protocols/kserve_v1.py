"""KServe's V1 protocol: instances in, predictions out.

Specification: https://kserve.github.io/website/docs/concepts/architecture/data-plane/v1-protocol. An
instance is a text, or an object with the task's inputs by their names. `parameters`, which KServe leaves to
the model server, are the task's.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import Field

from serve_app.contract import ParameterValue, StrictModel
from serve_app.engine.base import Engine
from serve_app.http.errors import Reply
from serve_app.protocols.bodies import parse_body
from serve_app.protocols.inputs import input_of

V1_PREDICT: Final = "v1:predict"
"""The last part of the path at a replica; HAProxy makes it of `/v1/models/<name>:predict`."""


class V1Request(StrictModel):
    """One request; each of `instances` is a text or an object of texts."""

    instances: list[Any]
    parameters: dict[Annotated[str, Field(max_length=64)], ParameterValue] = Field(default_factory=dict)


async def v1_predict(engine: Engine, body: bytes, headers: Mapping[str, str]) -> Reply:
    """Answer with one prediction for each instance, in their order."""
    request = parse_body(V1Request, body)
    texts = [
        input_of(instance, engine, f"instances[{number}]")
        for number, instance in enumerate(request.instances)
    ]
    predictions = await engine.predict(texts, request.parameters)
    return Reply.of_json({"predictions": predictions})
