"""Find the version because of which Ray rejects a whole Serve config, as git bisect finds a commit; pure.

Ray does not say which application of a rejected Serve config is at fault, and KubeRay stops reporting. So
everything that was new in it becomes a suspect and is left out, until KubeRay reports again. Then the
suspects are tried in groups. After a group that Ray accepts, the next one is twice as large; after one that
it rejects, half as large. A single entry is at fault if Ray says that it rejected the config, or if KubeRay
stops again while only that entry is on trial.
"""

from collections.abc import Mapping

from serve_app.contract import GATEWAY_APPLICATION


class Suspicion:
    """The suspects, those of them on trial, and the last Serve config that Ray has accepted."""

    def __init__(self) -> None:
        self.taken: dict[str, str] | None = None
        self._suspects: dict[str, str] = {}
        self._on_trial: set[str] = set()
        self._group = 1

    @property
    def suspects(self) -> dict[str, str]:
        """The entries that stay out of the Serve config for now, by endpoint."""
        return {name: entry for name, entry in self._suspects.items() if name not in self._on_trial}

    def was_taken(self, live: Mapping[str, str]) -> None:
        """Note that Ray has accepted the Serve config `live`, and put the next group on trial."""
        self.taken = dict(live)
        acquitted = {name for name in self._on_trial if live.get(name) == self._suspects[name]}
        if self._on_trial and acquitted == self._on_trial:
            self._group *= 2
        self._suspects = {name: entry for name, entry in self._suspects.items() if name not in acquitted}
        self._on_trial -= acquitted
        if not self._on_trial:
            self._on_trial = set(list(self._suspects)[: self._group])

    def was_refused(self, live: Mapping[str, str], good: Mapping[str, str], certain: bool) -> dict[str, str]:
        """Note that `live` was not accepted; return the entry that is at fault, if known, by endpoint.

        `good` has entries that have run; it is used while no accepted Serve config is known. `certain` means
        that Ray has rejected the config, and not only that KubeRay has stopped reporting.
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
        """Drop suspects that are not the entry that their endpoint's spec describes any more."""
        self._suspects = {name: entry for name, entry in self._suspects.items() if wanted.get(name) == entry}
        self._on_trial &= self._suspects.keys()
