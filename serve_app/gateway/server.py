"""What the server as a whole says of itself, over HTTP and gRPC."""

from importlib.metadata import version
from typing import Final

SERVER_NAME: Final = "model-endpoints"
SERVER_VERSION: Final = version(SERVER_NAME)
# Triton's names of what goes beyond the Open Inference Protocol.
EXTENSIONS: Final = ("binary_tensor_data", "model_repository", "parameters")
