"""The autoscaler gives back the worker that test_gpu.py has needed."""


def test_without_an_endpoint_that_needs_it_the_group_of_accelerators_is_empty_again(release):
    assert "on-gpu" not in release.kubectl("get", "modelendpoints", "--output=name")
    release.wait_for("the worker group is empty", lambda: release.pods(group="gpu") == [], seconds=300)
