"""The two kinds of Kubernetes objects that the operator and the command read."""

from dataclasses import dataclass
from typing import Final

from endpoint_operator.api.types import GROUP, KIND, PLURAL, VERSION


@dataclass(frozen=True)
class Kind:
    """A kind of custom resources, in the words of the Kubernetes API."""

    group: str
    version: str
    kind: str
    plural: str

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}"


MODEL_ENDPOINT: Final = Kind(GROUP, VERSION, KIND, PLURAL)
RAY_SERVICE: Final = Kind("ray.io", "v1", "RayService", "rayservices")
