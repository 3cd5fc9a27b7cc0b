"""The autoscaler gives back the worker that test_gpu.py has needed."""

import pytest


def test_without_an_endpoint_that_needs_it_the_worker_with_accelerators_goes(release, accelerator_workers):
    if not accelerator_workers:
        pytest.skip("test_gpu.py has made none")
    assert "on-gpu" not in release.kubectl("get", "modelendpoints", "--output=name")
    release.wait_for("the worker group is empty", lambda: release.pods(group="gpu") == [], seconds=300)
