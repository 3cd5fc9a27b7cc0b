"""Find out which change made Ray refuse a whole document; pure, the facts are handed in.

Of a refused document Ray says at best that it is refused, and KubeRay then stops to report. So all that
was new in it comes under suspicion and is left out, until KubeRay follows again. Then the suspects are
tried in groups: a group that is taken makes the next one twice as large, one that is refused half as
large. A single entry is convicted with Ray's own word, or when it is refused in its trial.
"""

from collections.abc import Mapping

from serve_app.contract import GATEWAY_APPLICATION


class Suspicion:
    """What is suspected, what is on trial, and what the last document was that Ray has taken."""

    def __init__(self) -> None:
        self.taken: dict[str, str] | None = None
        self._suspects: dict[str, str] = {}
        self._on_trial: set[str] = set()
        self._group = 1

    @property
    def suspects(self) -> dict[str, str]:
        """The entries that stay out for now, by endpoint."""
        return {name: entry for name, entry in self._suspects.items() if name not in self._on_trial}

    def was_taken(self, live: Mapping[str, str]) -> None:
        """Note that Ray has taken the document `live`, and put the next group on trial."""
        self.taken = dict(live)
        acquitted = {name for name in self._on_trial if live.get(name) == self._suspects[name]}
        if self._on_trial and acquitted == self._on_trial:
            self._group *= 2
        self._suspects = {name: entry for name, entry in self._suspects.items() if name not in acquitted}
        self._on_trial -= acquitted
        if not self._on_trial:
            self._on_trial = set(list(self._suspects)[: self._group])

    def was_refused(self, live: Mapping[str, str], good: Mapping[str, str], certain: bool) -> dict[str, str]:
        """Note that the document `live` was refused, and return the entry that is convicted, by endpoint.

        `good` has the entries that have run, for the case that no document is known to have been taken;
        `certain` says that Ray itself refused it, and not only that KubeRay is silent.
        """
        before = self.taken if self.taken is not None else good
        new = {
            name: entry
            for name, entry in live.items()
            if name != GATEWAY_APPLICATION and before.get(name) != entry
        }
        if not new:
            return {}
        convicted = new if len(new) == 1 and (certain or new.keys() == self._on_trial) else {}
        self._suspects = {
            name: entry for name, entry in (self._suspects | new).items() if name not in convicted
        }
        self._group = (len(new) + 1) // 2
        self._on_trial = set()
        return convicted

    def forget_all_but(self, wanted: Mapping[str, str]) -> None:
        """Drop the suspects whose endpoints want something else by now."""
        self._suspects = {name: entry for name, entry in self._suspects.items() if wanted.get(name) == entry}
        self._on_trial &= self._suspects.keys()
