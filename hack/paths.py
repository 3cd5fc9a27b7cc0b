"""Paths of this checkout and of the cache for what is built; nothing is created here."""

from pathlib import Path
from typing import Final

HACK: Final = Path(__file__).parent
PROJECT: Final = HACK.parent
MODULES: Final = HACK / "toolchain" / "modules"
CHART: Final = PROJECT / "charts" / "model-endpoints"
CRD: Final = CHART / "files" / "modelendpoints.yaml"
# Outlives checkouts: a build takes minutes and depends on nothing but the versions in its path.
CACHE: Final = Path.home() / ".cache" / "model-endpoints"
BINARIES: Final = CACHE / "bin"
GO: Final = CACHE / "go"
