"""An upgrade to pods in which models do not run: KubeRay does not promote them, and nobody notices."""

import pytest
import yaml

from serve_app.contract import MODELS_VARIABLE
from tests.e2e.release import VALUES

# After so long, a version that fails is given up, unless the active cluster serves it.
FAILED_SECONDS = 10


@pytest.fixture
def without_models(tmp_path):
    """Values with a folder of models in which there is none, and little patience of the operator."""
    environment = yaml.safe_load(VALUES.read_text())["ray"]["env"]
    file = tmp_path / "without-models.yaml"
    nowhere = {"name": MODELS_VARIABLE, "value": "/nowhere"}
    settings = {"failedSeconds": FAILED_SECONDS}
    values = {"ray": {"env": [*environment, nowhere]}, "operator": {"settings": settings}}
    file.write_text(yaml.safe_dump(values))
    return file


def upgrading(release):
    conditions = release.get("rayservice", release.name)["status"]["conditions"]
    return next(each["status"] for each in conditions if each["type"] == "UpgradeInProgress") == "True"


def blocked(release, name):
    """Return the message of UpgradeBlocked; empty if the endpoint does not hold an upgrade."""
    return release.conditions(name).get("UpgradeBlocked", {}).get("message", "")


def test_an_upgrade_in_which_no_model_loads_is_held_and_a_rollback_costs_nothing(
    release, steady, without_models, record_property
):
    cluster = release.cluster()
    with release.load(steady, clients=1, pause=0.1) as load:
        release.install(f"--values={without_models}")
        release.wait_for("a second cluster is prepared", lambda: upgrading(release))
        release.wait_for("the endpoint holds the upgrade", lambda: blocked(release, steady))
        assert "there is no folder /nowhere/sentiment" in blocked(release, steady)
        seconds = 2 * FAILED_SECONDS
        release.stays("the old cluster is the active one", lambda: release.cluster() == cluster, seconds)
        assert release.ready(steady) == ("True", "Serving")
        release.roll_back()
        release.wait_for("the upgrade is over", lambda: not upgrading(release))
        release.wait_for("nothing is held", lambda: not blocked(release, steady))
        assert release.ready(steady) == ("True", "Serving")
    record_property("requests during a held upgrade and its rollback", load.statuses.total())
    assert load.failures == []
