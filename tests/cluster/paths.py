"""Where the package keeps what it builds; decides places only, creates nothing."""

from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).parents[2]
MODULES: Final = Path(__file__).parent / "modules"
# Outlives checkouts: a build takes minutes and depends on nothing but the versions in its path.
CACHE: Final = Path.home() / ".cache" / "model-endpoints"
BINARIES: Final = CACHE / "bin"
GO: Final = CACHE / "go"
