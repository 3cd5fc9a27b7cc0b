"""The models as one client may see them: those that its key may ask."""

from collections.abc import Mapping

from serve_app.access.folder import AccessFolder
from serve_app.access.policy import Policy, unknown_model
from serve_app.engine.records import current_record
from serve_app.gateway.model_index import ModelIndex, ModelState
from serve_app.http.errors import UnknownModelError
from serve_app.text import shortened


class VisibleModels:
    """The index behind the policy of `access`. `headers` are the client's, with names in small letters."""

    def __init__(self, index: ModelIndex, access: AccessFolder) -> None:
        self._index = index
        self._access = access

    def check_key(self, headers: Mapping[str, str]) -> None:
        """Raise UnauthorizedError for a client that is refused, before its body is read."""
        _caller(self._access.policy, headers)

    async def all(self, headers: Mapping[str, str]) -> list[ModelState]:
        """Return the fresh states of the models that the client may ask, sorted by name.

        Raises UnauthorizedError for a client that is refused, and ModelNotReadyError if Serve is silent.
        """
        policy = self._access.policy
        caller = _caller(policy, headers)
        return [state for state in await self._index.all() if policy.allows(caller, state.allow)]

    async def resolve(self, headers: Mapping[str, str], name: str) -> ModelState:
        """Return the state of a model that answers; raise as ModelIndex.resolve does, and if not allowed."""
        return await self._resolve(headers, name, only_allowed=False)

    async def require(self, headers: Mapping[str, str], name: str) -> None:
        """Raise if the model `name` is unknown or the client may not ask it, whether it answers or not."""
        await self._resolve(headers, name, only_allowed=True)

    async def _resolve(self, headers: Mapping[str, str], name: str, *, only_allowed: bool) -> ModelState:
        policy = self._access.policy
        caller = _caller(policy, headers, name)
        try:
            state = await self._index.known(name)
        except UnknownModelError as error:
            raise self._unknown(policy, caller, name) from error
        policy.require(caller, state.allow, name)
        return state if only_allowed else await self._index.resolve(name)

    def _unknown(self, policy: Policy, caller: str, name: str) -> UnknownModelError:
        """Return the error with the names that the client may know; with none, where others are hidden."""
        if policy.hides:
            return unknown_model(name)
        states = self._index.last
        return unknown_model(name, [each.name for each in states if policy.allows(caller, each.allow)])


def _caller(policy: Policy, headers: Mapping[str, str], model: str = "") -> str:
    """Return who asks, noted in the record for logs; raise UnauthorizedError for a client that is refused."""
    record = current_record()
    if record is not None and model:
        record.model = shortened(model)
    caller = policy.caller_of(headers)
    if record is not None:
        record.caller = caller
    return caller
