"""Where models may come from, and with which tokens of a hub; pure.

On a cluster, that is what the chart's values `sources.allow` and `hub.tokenSecrets` say; a file of resource
profiles has it beside the profiles. On a local machine everything is allowed.
"""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from endpoint_operator.api.types import ApiModel
from serve_app.contract import SecretName
from serve_app.source_rules import RULE_PATTERN, objection
from serve_app.text import first_few


class SourceNotAllowedError(Exception):
    """A model is to come from a source, or with a token, that the chart does not list."""


class SourceList(ApiModel):
    """The part of a profiles file that says where models may come from."""

    allow: list[Annotated[str, Field(max_length=512, pattern=RULE_PATTERN)]] = Field(default_factory=list)
    token_secrets: list[SecretName] = Field(default_factory=list)

    def as_sources(self) -> "Sources":
        return Sources(tuple(self.allow), tuple(self.token_secrets))


@dataclass(frozen=True)
class Sources:
    """Rules for URIs, none for all, and the Secrets with tokens; None lets an endpoint name any Secret."""

    allow: tuple[str, ...] = ()
    token_secrets: tuple[str, ...] | None = None

    def require(self, uri: str, token_secret: str) -> None:
        """Raise SourceNotAllowedError if a model may not come from `uri`, or not with that token."""
        if reason := objection(uri, self.allow):
            raise SourceNotAllowedError(reason)
        if not token_secret or self.token_secrets is None or token_secret in self.token_secrets:
            return
        there = f"has {first_few(self.token_secrets)}" if self.token_secrets else "is empty"
        raise SourceNotAllowedError(
            f"model.tokenSecret: no token is in a Secret {token_secret!r} for endpoints; hub.tokenSecrets of "
            f"the chart {there}"
        )

    def allows(self, uri: str, token_secret: str) -> bool:
        try:
            self.require(uri, token_secret)
        except SourceNotAllowedError:
            return False
        return True


ANY_SOURCE = Sources()
