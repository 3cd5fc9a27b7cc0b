"""The paths at which the body names the model, for all models at once.

A request to one of them becomes one to `/v2/models/<model>` and that path, by the rules of HAProxy or in the
gateway. The command of HAProxy imports this module, so it imports nothing.
"""

from typing import Final

ENTRANCES: Final = (
    "/predict",
    "/rerank",
    "/v1/rerank",
    "/v2/rerank",
    "/v1/embeddings",
    "/v1/chat/completions",
    "/v1/completions",
)
