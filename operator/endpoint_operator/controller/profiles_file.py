"""The operator's mounted file of resource profiles: reread when it changes; an invalid change is not used."""

import logging
from pathlib import Path

from endpoint_operator.api.profiles import ClusterProfiles, InvalidProfilesError, read_profiles

logger = logging.getLogger(__name__)


class ProfilesFile:
    """The profiles of one file; raises InvalidProfilesError if the file cannot be used at the start."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._text = self._read()
        self.profiles = self._parse(self._text)
        self.invalid = False

    def reread(self) -> bool:
        """Read the file again and return whether the profiles have changed.

        If the file is invalid, the last valid profiles stay in use, and the error is logged once.
        """
        # Kubernetes replaces the file by swapping a link, so that only its content shows a change.
        try:
            text = self._read()
            if text == self._text and not self.invalid:
                return False
            profiles = self._parse(text)
        except InvalidProfilesError as error:
            if not self.invalid:
                logger.error("%s; the profiles stay as they were", error)
            self.invalid = True
            return False
        changed = text != self._text
        if changed:
            self.profiles = profiles
            logger.info("Took over the profiles of %s.", self._path)
        self._text = text
        self.invalid = False
        return changed

    def _read(self) -> str:
        try:
            return self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidProfilesError(f"{self._path}: cannot be read: {error}") from error

    def _parse(self, text: str) -> ClusterProfiles:
        try:
            return read_profiles(text, str(self._path))
        except InvalidProfilesError as error:
            # A YAML error has several lines; an entry of the log has one.
            raise InvalidProfilesError(" ".join(str(error).split())) from error
