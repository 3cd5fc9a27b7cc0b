import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from endpoint_operator.api.profiles import (
    LocalMachine,
    ProfileList,
    UnfitResourcesError,
    memory_bytes,
    parse_profiles,
)
from endpoint_operator.api.sources import SourceNotAllowedError
from endpoint_operator.api.types import Resources
from endpoint_operator.api.validation import describe
from tests.harness.builders import CLUSTER, GIBIBYTE

CPU = {"name": "cpu", "cpus": 8, "memory": "16Gi"}


def resources(**fields):
    return Resources.model_validate(fields)


def refusal(profiles, **fields):
    with pytest.raises(UnfitResourcesError) as caught:
        profiles.place(resources(**fields))
    return str(caught.value)


def problems_of(document):
    with pytest.raises(ValidationError) as caught:
        parse_profiles(document)
    return [str(problem) for problem in describe(caught.value, ProfileList)]


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [
        ("1", 1),
        ("1500", 1500),
        ("3k", 3000),
        ("3Ki", 3 * 1024),
        ("512Mi", 512 * 2**20),
        ("2G", 2 * 10**9),
        ("2Gi", 2 * 2**30),
        ("1T", 10**12),
        ("1Ti", 2**40),
        ("7M", 7 * 10**6),
    ],
)
def test_a_quantity_means_what_kubernetes_means(quantity, expected):
    assert memory_bytes(quantity) == expected


@given(st.from_regex(r"[1-9][0-9]{0,9}(Ki|Mi|Gi|Ti|k|M|G|T)?", fullmatch=True))
def test_every_quantity_that_the_api_allows_can_be_read(quantity):
    assert memory_bytes(quantity) >= int(quantity.rstrip("KMGTik"))


def test_a_replica_lands_in_the_worker_group_of_its_profile():
    placement = CLUSTER.place(resources(profile="gpu-t4", count=2, cpus=4, memory="8Gi"))
    assert (placement.cpus, placement.accelerators, placement.memory_bytes) == (4, 2, 8 * GIBIBYTE)
    assert placement.node_labels == {"modelendpoint.dev/profile": "gpu-t4"}


def test_a_fraction_of_an_accelerator_is_asked_for_as_it_is():
    assert CLUSTER.place(resources(profile="gpu-t4", count=0.25)).accelerators == 0.25


def test_a_profile_without_accelerators_gives_none():
    assert CLUSTER.place(resources(profile="cpu")).accelerators == 0


def test_a_replica_may_take_a_whole_worker():
    CLUSTER.place(resources(profile="gpu-t4", count=4, cpus=16, memory="64Gi"))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"profile": "tpu"}, "resources.profile: no profile is named 'tpu'; there are cpu, gpu-t4"),
        (
            {"profile": "gpu-t4", "count": 5},
            "resources.count: asks for 5 accelerators, and a worker of profile 'gpu-t4' has 4",
        ),
        ({"count": 2}, "resources.count: asks for 2 accelerators, and a worker of profile 'cpu' has 0"),
        ({"cpus": 8.5}, "resources.cpus: asks for 8.5 cores, and a worker of profile 'cpu' has 8"),
        ({"memory": "17Gi"}, "resources.memory: asks for 17Gi, and a worker of profile 'cpu' has 16Gi"),
    ],
)
def test_what_no_worker_has_is_refused_with_what_it_has(fields, sentence):
    assert refusal(CLUSTER, **fields) == sentence


def test_on_ones_own_machine_every_profile_is_that_machine():
    machine = LocalMachine(cpus=2, memory_bytes=4 * GIBIBYTE, accelerators=0)
    placement = machine.place(resources(profile="gpu-t4", cpus=2, memory="4Gi"))
    assert (placement.cpus, placement.memory_bytes, dict(placement.node_labels)) == (2, 4 * GIBIBYTE, {})


@pytest.mark.parametrize(("present", "asked", "given"), [(0, 1, 0), (0, 0.5, 0), (1, 0.5, 0.5), (2, 1, 1)])
def test_a_machine_gives_the_accelerators_that_it_has(present, asked, given):
    machine = LocalMachine(cpus=2, memory_bytes=4 * GIBIBYTE, accelerators=present)
    assert machine.place(resources(profile="gpu-t4", count=asked)).accelerators == given


def test_the_cpu_profile_takes_no_accelerator_of_the_machine():
    machine = LocalMachine(cpus=2, memory_bytes=4 * GIBIBYTE, accelerators=2)
    assert machine.place(resources(profile="cpu", count=1)).accelerators == 0


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"memory": "5Gi"}, "resources.memory: asks for 5Gi, and this machine has 4.0Gi free"),
        ({"cpus": 2.5}, "resources.cpus: asks for 2.5, and this machine has 2 cores"),
    ],
)
def test_what_the_machine_lacks_is_refused_with_what_it_has(fields, sentence):
    assert refusal(LocalMachine(cpus=2, memory_bytes=4 * GIBIBYTE, accelerators=0), **fields) == sentence


def test_a_profile_says_all_that_the_chart_needs():
    [profile] = ProfileList.model_validate(
        {
            "profiles": [
                {
                    **CPU,
                    "nodeSelector": {"pool": "cpu"},
                    "tolerations": [{"key": "pool", "operator": "Exists", "effect": "NoSchedule"}],
                    "minWorkers": 1,
                    "maxWorkers": 4,
                }
            ]
        }
    ).profiles
    assert (profile.node_selector, profile.min_workers, profile.max_workers) == ({"pool": "cpu"}, 1, 4)
    assert profile.tolerations[0].key == "pool"


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (None, "got None; input should be a valid dictionary or instance of ProfileList"),
        ({}, "profiles: is required"),
        ({"profiles": []}, "profiles: got []; list should have at least 1 item after validation, not 0"),
        ({"profiles": [{"name": "a", "memory": "1Gi"}]}, "profiles.0.cpus: is required"),
        ({"profiles": [CPU | {"cpus": 0}]}, "profiles.0.cpus: got 0; input should be greater than 0"),
        (
            {"profiles": [CPU, CPU | {"accelerators": 0.5}]},
            "profiles.1.accelerators: got 0.5; input should be a valid integer",
        ),
    ],
)
def test_a_malformed_file_is_refused_with_the_place(document, problem):
    assert problems_of(document) == [problem]


def test_an_unknown_field_of_a_profile_is_named_with_the_fields_of_a_profile():
    assert problems_of({"profiles": [CPU | {"gpus": 1}]}) == [
        "profiles.0.gpus: unknown field; allowed here: accelerators, cpus, maxWorkers, memory, minWorkers, "
        "name, nodeSelector, price, tolerations"
    ]


def test_a_file_says_where_models_may_come_from():
    document = {"profiles": [CPU], "sources": {"allow": ["hf://org"], "tokenSecrets": ["team-a", "team-b"]}}
    sources = parse_profiles(document).sources
    sources.require("hf://org/name", "team-b")
    assert not sources.allows("hf://other/name", "")
    with pytest.raises(SourceNotAllowedError) as caught:
        sources.require("hf://org/name", "team-c")
    assert str(caught.value) == (
        "model.tokenSecret: no token is in a Secret 'team-c' for endpoints; hub.tokenSecrets of the chart "
        "has team-a, team-b"
    )


def test_a_file_that_says_nothing_of_sources_lets_all_in_with_the_token_of_all():
    sources = parse_profiles({"profiles": [CPU]}).sources
    assert sources.allows("file:///etc", "")
    with pytest.raises(SourceNotAllowedError, match="hub.tokenSecrets of the chart is empty"):
        sources.require("hf://org/name", "team-a")


def test_on_a_local_machine_models_come_from_everywhere_and_with_any_token():
    machine = LocalMachine(cpus=2, memory_bytes=4 * GIBIBYTE, accelerators=0)
    assert machine.sources.allows("hf://org/name", "team-a")


@pytest.mark.parametrize("rule", ["s3://bucket", "hf://org/name/file", "file:///a/../b", ""])
def test_a_rule_that_cannot_be_read_is_refused_with_its_place(rule):
    [problem] = problems_of({"profiles": [CPU], "sources": {"allow": ["hf", rule]}})
    assert problem.startswith(f"sources.allow.1: got {rule!r}")


@pytest.mark.parametrize("memory", ["", "lots", "2.5Gi", "-1Gi", "0"])
def test_a_profile_whose_memory_cannot_be_read_is_refused_before_an_endpoint_meets_it(memory):
    [problem] = problems_of({"profiles": [CPU | {"memory": memory}]})
    assert problem.startswith("profiles.0.memory: ")
    assert repr(memory) in problem


def test_a_profile_name_may_be_used_once():
    with pytest.raises(ValueError, match="profiles: each name may be used once"):
        parse_profiles({"profiles": [CPU, CPU]})


def test_a_profile_cannot_want_more_workers_than_it_allows():
    [problem] = problems_of({"profiles": [CPU | {"minWorkers": 3, "maxWorkers": 2}]})
    assert "minWorkers must not be above maxWorkers; got minWorkers 3, maxWorkers 2" in problem


def test_the_cpu_profile_takes_no_accelerator_of_ones_own_machine():
    with_one = LocalMachine(cpus=2, memory_bytes=2**34, accelerators=1)
    assert with_one.place(Resources()).accelerators == 0
    assert with_one.place(Resources.model_validate({"profile": "nvidia-l4"})).accelerators == 1
