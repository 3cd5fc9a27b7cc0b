"""Compile endpoints and profiles into the Serve config; pure, and the same input always gives the same bytes.

Each endpoint becomes one application, whose entry depends on that endpoint alone. An invalid endpoint
therefore changes no byte of another's entry.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from endpoint_operator.api.json_text import to_json
from endpoint_operator.api.profiles import Profiles, UnfitResourcesError
from endpoint_operator.api.sources import SourceNotAllowedError
from endpoint_operator.api.types import ModelEndpoint, ModelEndpointSpec
from endpoint_operator.serveconfig.document import to_document, to_entry
from endpoint_operator.serveconfig.fields import values_by_place
from endpoint_operator.serveconfig.schema import (
    Application,
    AutoscalingConfig,
    Deployment,
    NodeLabels,
    RayActorOptions,
    ScalingPolicy,
)
from serve_app.contract import (
    BUILD_IMPORT_PATH,
    GATEWAY_APPLICATION,
    GATEWAY_DEPLOYMENT,
    GATEWAY_IMPORT_PATH,
    MODEL_DEPLOYMENT,
    SCALING_POLICY_IMPORT_PATH,
    ModelArgs,
    Task,
    UserConfig,
    route_prefix,
)

# Serve averages the load over the look-back period, so these two bound how soon it can react to a change.
METRICS_INTERVAL_SECONDS: Final = 2.0
LOOK_BACK_SECONDS: Final = 6.0

GATEWAY_MAX_REQUESTS: Final = 4096
GATEWAY_CPUS: Final = 0.1
GATEWAY_MEMORY_BYTES: Final = 256 * 2**20


# All entries share one Kubernetes object. Of the defaults, an entry has about 500 bytes.
MAX_ENTRY_BYTES: Final = 32 * 1024


class EntryTooLargeError(Exception):
    """The entry of an endpoint has more bytes than one may have; the message names its largest field."""


@dataclass(frozen=True)
class Rejection:
    """An endpoint that is left out, and a sentence that says why."""

    key: tuple[str, str]
    reason: str


@dataclass(frozen=True)
class Compilation:
    """The Serve config as text, and the endpoints that could not be put into it."""

    document: str
    rejections: tuple[Rejection, ...]


def compile_serve_config(endpoints: Iterable[ModelEndpoint], profiles: Profiles) -> Compilation:
    """Return the Serve config of `endpoints`; their order does not matter.

    Suspended endpoints are left out. Endpoints that fit no profile, whose source is not allowed, whose entry
    is too large, or whose name an older served endpoint has, are left out and listed as rejections. The name
    of an endpoint that is left out is free for another one.
    """
    entries = {GATEWAY_APPLICATION: to_entry(gateway_application(profiles))}
    rejections = []
    for endpoint in sorted(endpoints, key=_seniority):
        if endpoint.spec.suspend:
            continue
        if endpoint.name in entries:
            reason = f"metadata.name: an older endpoint in another namespace has the name {endpoint.name!r}"
            rejections.append(Rejection(endpoint.key, reason))
            continue
        try:
            entries[endpoint.name] = compile_entry(endpoint, profiles)
        except (UnfitResourcesError, SourceNotAllowedError, EntryTooLargeError) as error:
            rejections.append(Rejection(endpoint.key, str(error)))
    return Compilation(to_document(entries), tuple(rejections))


def _seniority(endpoint: ModelEndpoint) -> tuple[str, tuple[str, str]]:
    return (endpoint.metadata.creation_timestamp, endpoint.key)


def compile_entry(endpoint: ModelEndpoint, profiles: Profiles) -> str:
    """Return the entry of `endpoint`.

    Raises UnfitResourcesError if it fits no profile, SourceNotAllowedError if its source is not allowed,
    and EntryTooLargeError if it has too many bytes.
    """
    profiles.sources.require(endpoint.spec.model.uri, endpoint.spec.model.token_secret)
    entry = to_entry(compile_application(endpoint, profiles))
    # An entry is ASCII.
    size = len(entry.encode())
    if size > MAX_ENTRY_BYTES:
        sizes = {field: len(to_json(value).encode()) for field, value in _leaf_values(endpoint.spec)}
        largest = max(sizes, key=lambda field: sizes[field])
        raise EntryTooLargeError(
            f"{largest}: has {sizes[largest]:,} of the {size:,} bytes that the endpoint's entry in the "
            f"Serve config would have; an entry may have {MAX_ENTRY_BYTES:,}, and a character beyond ASCII "
            "takes 6 or 12"
        )
    return entry


def _leaf_values(spec: ModelEndpointSpec) -> Iterator[tuple[str, Any]]:
    """Yield the path and the value of each field of the spec; each parameter is one."""
    for section, content in spec.model_dump(mode="json", by_alias=True).items():
        fields = dict(content) if isinstance(content, dict) else {}
        parameters = fields.pop("parameters", {})
        yield from ((f"{section}.{name}", value) for name, value in fields.items())
        yield from ((f"{section}.parameters.{name}", value) for name, value in parameters.items())


def compile_application(endpoint: ModelEndpoint, profiles: Profiles) -> Application:
    """Return the Serve application of `endpoint`; raise UnfitResourcesError if it fits no profile."""
    spec = endpoint.spec
    options = values_by_place(spec, profiles.place(spec.resources))
    args = ModelArgs(name=endpoint.name, **options.pop("args"))
    return Application(
        name=endpoint.name,
        route_prefix=route_prefix(endpoint.name),
        import_path=BUILD_IMPORT_PATH,
        args=args.model_dump(mode="json", exclude_defaults=True),
        deployments=(_model_deployment(spec.model.task, **options),),
    )


def _model_deployment(
    task: Task,
    user_config: dict[str, Any],
    autoscaling_config: dict[str, Any],
    ray_actor_options: dict[str, Any],
    **options: Any,
) -> Deployment:
    """Return the deployment with the options of `values_by_place`, and what is derived from them."""
    tunables, autoscaling = UserConfig(**user_config), _autoscaling(task, autoscaling_config)
    return Deployment(
        name=MODEL_DEPLOYMENT,
        num_replicas=None if autoscaling else autoscaling_config["min_replicas"],
        autoscaling_config=autoscaling,
        ray_actor_options=_actor_options(**ray_actor_options),
        user_config=tunables.model_dump(mode="json", exclude_defaults=True),
        # The replica counts requests itself, because only the replica can reject one with our error body and
        # still answer a readiness probe. Serve's own limits are higher and only a safeguard.
        max_ongoing_requests=2 * tunables.max_requests,
        max_queued_requests=tunables.max_queued_requests,
        **options,
    )


def _autoscaling(task: Task, options: dict[str, Any]) -> AutoscalingConfig | None:
    """Return None for a fixed number of replicas, which costs Serve's controller no work."""
    if options["min_replicas"] == options["max_replicas"]:
        return None
    return AutoscalingConfig(
        metrics_interval_s=METRICS_INTERVAL_SECONDS,
        look_back_period_s=LOOK_BACK_SECONDS,
        policy=_policy(task),
        **options,
    )


def _policy(task: Task) -> ScalingPolicy | None:
    """Return the policy for models that may be computed in steps; replicas of others report no load."""
    if task is not Task.TEXT_GENERATION:
        return None
    return ScalingPolicy(policy_function=SCALING_POLICY_IMPORT_PATH)


def _actor_options(label_selector: dict[str, str], **options: Any) -> RayActorOptions:
    return RayActorOptions(
        label_selector=label_selector,
        # Serve runs the build of an application on a node with the labels of its replicas. The build asks
        # for nothing else, so the autoscaler would never start the first such node, and the build would wait
        # for ever. With a fallback, Serve runs the build on any node. This fallback has the same labels, so
        # that replicas run nowhere else.
        fallback_strategy=(NodeLabels(label_selector=label_selector),) if label_selector else None,
        **options,
    )


def gateway_application(profiles: Profiles) -> Application:
    """Return the gateway's application, which is always there, so that the Serve config is never empty."""
    return Application(
        name=GATEWAY_APPLICATION,
        route_prefix="/",
        import_path=GATEWAY_IMPORT_PATH,
        args={},
        deployments=(
            Deployment(
                name=GATEWAY_DEPLOYMENT,
                num_replicas=profiles.gateways,
                ray_actor_options=_actor_options(
                    dict(profiles.gateway_labels), num_cpus=GATEWAY_CPUS, memory=GATEWAY_MEMORY_BYTES
                ),
                max_ongoing_requests=GATEWAY_MAX_REQUESTS,
                max_queued_requests=GATEWAY_MAX_REQUESTS,
            ),
        ),
    )
