"""What `helm uninstall` leaves; the last tests of the release."""

KINDS = (
    "rayservices,rayclusters,deployments,pods,services,configmaps,secrets,serviceaccounts,roles,rolebindings,"
    "networkpolicies,clusterroles,statefulsets,persistentvolumeclaims"
)
DEFINITION = "modelendpoints.serving.modelendpoint.dev"


def left(release):
    """Return what is there of the release, or belongs to its Ray cluster."""
    ours = release.get(KINDS, "--selector=app.kubernetes.io/instance=models")["items"]
    rays = release.get("pods,services", "--selector=ray.io/cluster")["items"]
    # The operators make it, and it has no labels.
    leases = [
        each for each in release.get("leases")["items"] if each["metadata"]["name"].startswith("models")
    ]
    return [f"{item['kind']} {item['metadata']['name']}" for item in (*ours, *rays, *leases)]


def test_everything_goes_but_the_definition_and_the_models(release, steady, kubectl):
    assert left(release)
    # A worker waits for clients that are connected.
    release.http.close()
    release.uninstall()
    release.wait_for("nothing is left", lambda: not left(release))
    assert kubectl.get("customresourcedefinition", DEFINITION)["metadata"]["name"] == DEFINITION
    # Nothing holds them back without an operator.
    assert release.get("modelendpoint", steady)["spec"]["model"]["task"] == "text-classification"
    release.delete(steady)


def test_the_definition_goes_too_if_it_is_not_to_be_kept(release, kubectl):
    # A pod that still starts would stay for the time that pods have to end.
    release.install("--set=crds.keep=false,profiles[0].minWorkers=0,head.terminationGracePeriodSeconds=6")
    release.uninstall()
    # Helm takes for gone what its watch has not reported yet, so it may return before that.
    kubectl("wait", "customresourcedefinition", DEFINITION, "--for=delete", "--timeout=60s")
