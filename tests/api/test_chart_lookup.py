"""What the chart looks up in the cluster when helm renders it there."""

import pytest

from hack.cluster.helm import Helm
from hack.errors import CommandError
from hack.paths import CHART
from tests.harness.documents import ray_service

REQUIRED = "image.repository=a.example/serve,image.tag=build-1,operator.image.repository=a.example/operator"
# Objects of the whole cluster would be those of other tests, too.
SHARED = "crds.install=false,rbac.aggregate=false"
DEFAULT_LABEL = "serving.modelendpoint.dev/default-runtime"


def ownership(release, namespace):
    """Return the metadata by which helm knows its own objects."""
    return {
        "labels": {"app.kubernetes.io/managed-by": "Helm"},
        "annotations": {"meta.helm.sh/release-name": release, "meta.helm.sh/release-namespace": namespace},
    }


@pytest.fixture
def render(api_server, ray_services, namespace):
    """Return a function that renders the release `models` as a dry run on the server does."""
    helm = Helm(api_server)

    def render(*options, release="models"):
        return helm(
            *("template", release, str(CHART), f"--namespace={namespace}", "--dry-run=server"),
            *(f"--set={REQUIRED},{SHARED}", *options),
        )

    return render


@pytest.fixture
def there(http, namespace):
    """Return a function that stores a RayService as another release of the chart leaves it."""

    def store(name, release, default="true"):
        service = ray_service(name)
        service["metadata"] |= ownership(release, namespace)
        service["metadata"]["labels"][DEFAULT_LABEL] = default
        http.post(f"/apis/ray.io/v1/namespaces/{namespace}/rayservices", json=service).raise_for_status()

    return store


def test_the_first_default_runtime_of_a_namespace_is_welcome(render):
    assert f'{DEFAULT_LABEL}: "true"' in render()


def test_a_second_default_runtime_is_refused_by_the_name_of_the_first(render, there):
    there("other-model-endpoints", "other")
    with pytest.raises(CommandError) as refused:
        render()
    assert "RayService other-model-endpoints of release other" in str(refused.value)
    assert "runtime.default" in str(refused.value)
    assert DEFAULT_LABEL not in render("--set=runtime.default=false")


@pytest.mark.parametrize("name", ["models-model-endpoints", "an-older-name"])
def test_a_release_is_not_refused_for_itself(render, there, name):
    there(name, "models")
    assert f'{DEFAULT_LABEL}: "true"' in render()


def test_one_that_is_no_default_does_not_matter(render, there):
    there("other-model-endpoints", "other", default="false")
    assert f'{DEFAULT_LABEL}: "true"' in render()


@pytest.fixture
def install(api_server, ray_services, crd, namespace):
    """Return a function that installs or upgrades a release; no controller makes pods of it."""
    helm = Helm(api_server)

    def install(release, *options):
        helm(
            *("upgrade", "--install", release, str(CHART), f"--namespace={namespace}"),
            *(f"--set={REQUIRED},{SHARED}", *options),
        )

    return install


def test_a_token_is_made_once(install, kubectl, namespace):
    def token():
        return kubectl.get("secret", "models-model-endpoints-auth", f"--namespace={namespace}")["data"]

    install("models")
    made = token()
    assert made["auth_token"]
    install("models", "--set=operator.settings.failedSeconds=7")
    assert token() == made


def test_two_releases_in_one_namespace(install, kubectl, namespace):
    install("models")
    with pytest.raises(CommandError, match="RayService models-model-endpoints of release models"):
        install("second")
    install("second", "--set=runtime.default=false")
    # The first goes on being the default, and hands over once it is asked to.
    install("models")
    install("models", "--set=runtime.default=false")
    install("second", "--set=runtime.default=true")
    services = kubectl.get("rayservices", f"--namespace={namespace}")["items"]
    labels = {
        service["metadata"]["name"]: service["metadata"]["labels"].get(DEFAULT_LABEL) for service in services
    }
    assert labels == {"models-model-endpoints": None, "second-model-endpoints": "true"}
