"""Build the Serve application of one model; Ray calls `build` with the config's `args`.

No `from __future__ import annotations` here: Ray reads the annotation itself to turn `args` into
ModelArgs, and would silently pass a plain dictionary.
"""

from ray.serve import Application

from serve_app.contract import ModelArgs
from serve_app.deployment import Model


def build(args: ModelArgs) -> Application:
    return Model.bind(args)  # type: ignore[attr-defined]
