"""What Prometheus' operator makes of a PodMonitor and of a ServiceMonitor: the scrape configs of Prometheus.

In its order: what is scraped, the labels that it adds, and then the monitor's own relabelings. Debian's
Prometheus is built without the service discovery of Kubernetes, so the targets are listed here, with the
labels that the discovery gives them.
"""

import re


def scrape_configs(monitors, pods, services):
    """Return a scrape config for each endpoint of the monitors, with all targets that there are now."""
    discovered = {
        "PodMonitor": [_target(pod, *port) for pod in pods for port in _ports(pod)],
        "ServiceMonitor": [target for service in services for target in _targets_behind(service, pods)],
    }
    return [
        _scrape_config(monitor, endpoint, number, discovered[monitor["kind"]])
        for monitor in monitors
        for number, endpoint in enumerate(endpoints_of(monitor))
    ]


def endpoints_of(monitor):
    spec = monitor["spec"]
    return spec["podMetricsEndpoints"] if monitor["kind"] == "PodMonitor" else spec["endpoints"]


def _scrape_config(monitor, endpoint, number, targets):
    metadata, kind = monitor["metadata"], monitor["kind"]
    relabel = _pods if kind == "PodMonitor" else _endpoints_of_services
    known = {"port", "params", "relabelings", "metricRelabelings"}
    assert endpoint.keys() <= known, f"{endpoint.keys() - known} is not translated"
    return {
        "job_name": f"{kind}/{metadata['namespace']}/{metadata['name']}/{number}",
        "static_configs": [{"targets": [address], "labels": labels} for address, labels in targets],
        "params": endpoint.get("params", {}),
        "relabel_configs": [
            *relabel(monitor, endpoint["port"]),
            *map(snake_case, endpoint.get("relabelings", [])),
        ],
        "metric_relabel_configs": [snake_case(each) for each in endpoint.get("metricRelabelings", [])],
    }


def _ports(pod):
    """Yield each container of a pod with each of its ports."""
    for container in pod["spec"]["containers"]:
        for port in container.get("ports", []):
            yield container, port


def _target(pod, container, port):
    """Return the address of a port of a pod, and its labels as the discovery of pods has them."""
    metadata, meta = pod["metadata"], "__meta_kubernetes_pod"
    address = f"{pod['status'].get('podIP', '0.0.0.0')}:{port['containerPort']}"
    return address, {
        "__meta_kubernetes_namespace": metadata["namespace"],
        f"{meta}_name": metadata["name"],
        f"{meta}_phase": pod["status"]["phase"],
        f"{meta}_container_name": container["name"],
        f"{meta}_container_port_name": port.get("name", ""),
        f"{meta}_container_port_number": str(port["containerPort"]),
        **_labels(metadata.get("labels", {}), meta),
    }


def _targets_behind(service, pods):
    """Yield the targets of a Service's endpoints, as the discovery of endpoints has them."""
    metadata, spec = service["metadata"], service["spec"]
    for pod in pods:
        if not (
            spec.get("selector") and spec["selector"].items() <= pod["metadata"].get("labels", {}).items()
        ):
            continue
        for container, port in _ports(pod):
            for own in spec["ports"]:
                if own.get("targetPort") in (port.get("name"), port["containerPort"]):
                    address, labels = _target(pod, container, port)
                    yield (
                        address,
                        labels
                        | {"__meta_kubernetes_service_name": metadata["name"]}
                        | {"__meta_kubernetes_endpoint_port_name": own.get("name", "")}
                        | _labels(metadata.get("labels", {}), "__meta_kubernetes_service"),
                    )


def _labels(labels, meta):
    found = {}
    for name, value in labels.items():
        found |= {f"{meta}_label_{_label(name)}": value, f"{meta}_labelpresent_{_label(name)}": "true"}
    return found


def labels_of_job(monitor, endpoint):
    """Return the labels that do not depend on the target."""
    metadata = monitor["metadata"]
    job = metadata["name"]
    if monitor["kind"] == "PodMonitor":
        job = f"{metadata['namespace']}/{job}"
    return {"job": job, "namespace": metadata["namespace"], "endpoint": endpoint["port"]}


def snake_case(relabeling):
    """Return a relabeling of a monitor with the names of Prometheus' own configuration."""
    return {
        re.sub(r"[A-Z]", lambda found: f"_{found[0].lower()}", key): value
        for key, value in relabeling.items()
    }


def _pods(monitor, port):
    meta = "__meta_kubernetes_pod"
    labels = labels_of_job(monitor, {"port": port})
    return [
        {"source_labels": [f"{meta}_phase"], "regex": "(Failed|Succeeded)", "action": "drop"},
        *_selected(monitor["spec"]["selector"], meta),
        {"source_labels": [f"{meta}_container_port_name"], "regex": port, "action": "keep"},
        {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
        {"source_labels": [f"{meta}_container_name"], "target_label": "container"},
        {"source_labels": [f"{meta}_name"], "target_label": "pod"},
        {"target_label": "job", "replacement": labels["job"]},
        {"target_label": "endpoint", "replacement": port},
    ]


def _endpoints_of_services(monitor, port):
    pod = "__meta_kubernetes_pod"
    return [
        *_selected(monitor["spec"]["selector"], "__meta_kubernetes_service"),
        {"source_labels": ["__meta_kubernetes_endpoint_port_name"], "regex": port, "action": "keep"},
        {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
        {"source_labels": ["__meta_kubernetes_service_name"], "target_label": "service"},
        {"source_labels": [f"{pod}_name"], "target_label": "pod"},
        {"source_labels": [f"{pod}_container_name"], "target_label": "container"},
        {"source_labels": [f"{pod}_phase"], "regex": "(Failed|Succeeded)", "action": "drop"},
        {"source_labels": ["__meta_kubernetes_service_name"], "target_label": "job"},
        {"target_label": "endpoint", "replacement": port},
    ]


def _selected(selector, meta):
    """Yield the rules that keep what a label selector selects."""
    for name, value in selector.get("matchLabels", {}).items():
        label = _label(name)
        yield {
            "source_labels": [f"{meta}_label_{label}", f"{meta}_labelpresent_{label}"],
            "regex": f"({re.escape(value)});true",
            "action": "keep",
        }
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "Exists", f"{expression} is not translated"
        present = f"{meta}_labelpresent_{_label(expression['key'])}"
        yield {"source_labels": [present], "regex": "true", "action": "keep"}


def _label(name):
    """Return the name of a Kubernetes label as Prometheus' service discovery has it."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", name)


def through_api_server(config, address, tls):
    """Let a scrape config ask pods through the API server's proxy, at `address`, with a client's certificate.

    The targets' labels stay as they are: `instance` is the pod's own address.
    """
    meta = ["__meta_kubernetes_namespace", "__meta_kubernetes_pod_name"]
    port = "__meta_kubernetes_pod_container_port_number"
    transport = [
        {"source_labels": ["__address__"], "target_label": "instance"},
        {
            "source_labels": [*meta, port],
            "regex": "(.+);(.+);(.+)",
            "target_label": "__metrics_path__",
            "replacement": "/api/v1/namespaces/$1/pods/$2:$3/proxy/metrics",
        },
        {"target_label": "__address__", "replacement": address},
    ]
    relabeled = [*config["relabel_configs"], *transport]
    return {**config, "scheme": "https", "tls_config": tls, "relabel_configs": relabeled}
