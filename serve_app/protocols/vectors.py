"""Vectors as clients ask for them: with fewer numbers, and in base64."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from serve_app.http.errors import InvalidInputError


def cut(vector: Sequence[float], dimensions: int | None) -> Sequence[float]:
    """Return the first numbers of the vector, again with length 1, as OpenAI shortens vectors."""
    if dimensions is None:
        return vector
    if dimensions > len(vector):
        raise InvalidInputError(
            f"dimensions: got {dimensions}; the model has {len(vector)}", limit=len(vector)
        )
    short = np.asarray(vector[:dimensions])
    shortened: list[float] = (short / max(float(np.linalg.norm(short)), 1e-12)).tolist()
    return shortened


def written(vector: Sequence[float], encoding: str) -> Any:
    """Return the vector as JSON has it, or as base64 of little-endian float32."""
    if encoding == "float":
        return vector
    return base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode()
