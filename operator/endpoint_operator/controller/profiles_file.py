"""The catalogue of profiles as a mounted file: read again when it changes, its last good content kept."""

import logging
from pathlib import Path

import yaml
from pydantic import ValidationError

from endpoint_operator.api.profiles import ClusterCatalogue, ProfileList, parse_catalogue
from endpoint_operator.api.validation import describe

logger = logging.getLogger(__name__)


class CatalogueError(Exception):
    """A catalogue that cannot be used; the message names the file and what is wrong."""


class CatalogueFile:
    """The profiles of one file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._text = self._read()
        self.catalogue = self._parse(self._text)
        self.broken = False

    def reread(self) -> bool:
        """Take over what the file says by now; return whether the catalogue is another one.

        A broken file is reported once, and the last good content goes on.
        """
        # Kubernetes swaps a link to replace the file, so only its content tells whether it changed.
        try:
            text = self._read()
            if text == self._text and not self.broken:
                return False
            catalogue = self._parse(text)
        except CatalogueError as error:
            if not self.broken:
                logger.error("%s; the profiles stay as they were", error)
            self.broken = True
            return False
        changed = text != self._text
        if changed:
            self.catalogue = catalogue
            logger.info("Took over the profiles of %s.", self._path)
        self._text = text
        self.broken = False
        return changed

    def _read(self) -> str:
        try:
            return self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CatalogueError(f"{self._path}: cannot be read: {error}") from error

    def _parse(self, text: str) -> ClusterCatalogue:
        try:
            return parse_catalogue(yaml.safe_load(text))
        except ValidationError as error:
            problems = "; ".join(str(problem) for problem in describe(error, ProfileList))
            raise CatalogueError(f"{self._path}: {problems}") from error
        except (yaml.YAMLError, ValueError) as error:
            raise CatalogueError(f"{self._path}: {' '.join(str(error).split())}") from error
