"""The operator's own account in one namespace, with the rights that it needs and no other."""

from typing import Any, Final

import httpx

from endpoint_operator.api.types import GROUP, PLURAL

# The name that the chart gives to the Secret of keys.
KEYS_OF: Final = "{}-keys"
_READ: Final = ["get", "list", "watch"]


def rules_of(ray_service: str) -> list[dict[str, Any]]:
    """Return the rights of the operator of this RayService, those of the chart's operator-rbac.yaml."""
    services = {"apiGroups": ["ray.io"], "resources": ["rayservices"]}
    core = {"apiGroups": [""]}
    leases = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"]}
    return [
        {"apiGroups": [GROUP], "resources": [PLURAL], "verbs": _READ},
        {"apiGroups": [GROUP], "resources": [f"{PLURAL}/status"], "verbs": ["patch"]},
        services | {"verbs": _READ},
        services | {"resourceNames": [ray_service], "verbs": ["patch"]},
        {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "list"]},
        core | {"resources": ["secrets"], "resourceNames": [KEYS_OF.format(ray_service)], "verbs": ["get"]},
        core | {"resources": ["configmaps"], "resourceNames": [f"{ray_service}-access"], "verbs": ["get"]},
        core | {"resources": ["pods"], "verbs": ["list", "patch"]},
        leases | {"verbs": ["create"]},
        leases | {"resourceNames": [f"{ray_service}-operator"], "verbs": ["get", "update"]},
    ]


RULES: Final = rules_of("ray")


class Account:
    """A service account of the namespace, for the operator of one RayService, and its role."""

    def __init__(self, http: httpx.Client, namespace: str, ray_service: str = "ray") -> None:
        self._http = http
        self._name = f"operator-of-{ray_service}"
        self._rules = rules_of(ray_service)
        self._core = f"/api/v1/namespaces/{namespace}"
        self._roles = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
        self.namespace = namespace

    def create(self) -> None:
        """Create the account with all its rights."""
        self._post(f"{self._core}/serviceaccounts", {"metadata": {"name": self._name}})
        self._post(f"{self._roles}/roles", {"metadata": {"name": self._name}, "rules": self._rules})
        binding = {
            "metadata": {"name": self._name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": self._name},
            "subjects": [{"kind": "ServiceAccount", "name": self._name, "namespace": self.namespace}],
        }
        self._post(f"{self._roles}/rolebindings", binding)

    def token(self) -> str:
        """Return a token of the account."""
        answer = self._post(f"{self._core}/serviceaccounts/{self._name}/token", {"spec": {}})
        return str(answer["status"]["token"])

    def allow(self, rules: list[dict[str, Any]]) -> None:
        """Replace the rights of the account by `rules`."""
        role = {"metadata": {"name": self._name}, "rules": rules}
        self._http.put(f"{self._roles}/roles/{self._name}", json=role).raise_for_status()

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._http.post(path, json=body).raise_for_status().json()


def without(verb: str, resource: str) -> list[dict[str, Any]]:
    """Return the operator's rules without one verb on one resource."""
    return [
        rule | {"verbs": [each for each in rule["verbs"] if each != verb]}
        if resource in rule["resources"]
        else rule
        for rule in RULES
    ]
