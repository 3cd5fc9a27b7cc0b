import pytest
from pydantic import ValidationError

from endpoint_operator.api.types import ModelEndpoint, parse_endpoint
from endpoint_operator.api.validation import describe
from tests.harness.builders import manifest

GOOD_URIS = [
    "hf://org/name",
    "hf://org/name-1.5_x",
    "hf://0/0",
    "file:///models/sentiment",
    "file:///models/ünïcode",
    "file:///a..b/.hidden/...",
    "pvc://claim/folder",
    "pvc://my-claim-1/a/b",
    "package://package",
    "package://_package_1/folder/inner",
]

BAD_URIS = [
    "name",
    "https://example.com/model",
    "HF://org/name",
    "hf://org",
    "hf:///org/name",
    "hf://org/name/more",
    "hf://-org/name",
    "hf://org/name@revision",
    "hf://org/na me",
    "file://relative/path",
    "file:///",
    "file:///a b",
    "file:///a\x00b",
    "file:///a\nb",
    "pvc://claim",
    "pvc://Claim/folder",
    "pvc://claim-/folder",
    "pvc:///folder",
    "package://",
    "package:///folder",
    "package://1package/folder",
    "package://dotted.name/folder",
    "package://package/",
    " hf://org/name",
    "hf://org/name ",
    "hf://org/name\n",
    "file:///models/sentiment\n",
    "pvc://claim/folder\n",
    "package://package\n",
]

GOOD_NAMES = ["a", "0", "a-b", "sentiment-2", "a" * 40, "gateway-2", "a--b"]
BAD_NAMES = ["a" * 41, "A", "aB", "a.b", "a_b", "-a", "a-", "a b", "a/b", "ä", "a\n"]


def problems_of(document):
    with pytest.raises(ValidationError) as caught:
        parse_endpoint(document)
    return [str(problem) for problem in describe(caught.value, ModelEndpoint)]


@pytest.mark.parametrize("uri", GOOD_URIS)
def test_a_uri_of_each_scheme_is_taken(uri):
    assert parse_endpoint(manifest(model={"uri": uri})).spec.model.uri == uri


@pytest.mark.parametrize("uri", BAD_URIS)
def test_another_uri_is_refused_with_the_forms_that_are_allowed(uri):
    [problem] = problems_of(manifest(model={"uri": uri}))
    assert problem == (
        "spec.model.uri: uri must be hf://org/name, file:///folder, pvc://claim/folder or "
        f"package://package/folder; got uri {uri!r}"
    )


@pytest.mark.parametrize(
    "uri",
    [
        "file:///a/../b",
        "file:///..",
        "file:///a/..",
        "file:///./a",
        "pvc://c/../d",
        "package://p/../q",
        "pvc://c/.",
    ],
)
def test_a_uri_cannot_climb_out_of_its_folder(uri):
    assert problems_of(manifest(model={"uri": uri})) == [
        f"spec.model.uri: uri must not contain the path segments '.' or '..'; got uri {uri!r}"
    ]


def test_a_uri_of_512_characters_is_taken_and_a_longer_one_is_not():
    longest = "file:///" + "a" * 504
    parse_endpoint(manifest(model={"uri": longest}))
    [problem] = problems_of(manifest(model={"uri": longest + "a"}))
    assert problem.endswith("string should have at most 512 characters")


@pytest.mark.parametrize("uri", ["file:///a", "pvc://c/a", "package://p"])
def test_a_revision_is_refused_where_there_are_none(uri):
    assert problems_of(manifest(model={"uri": uri, "revision": "main"})) == [
        "spec.model.revision: revision applies to hf:// models only; remove it; "
        f"got revision 'main', uri {uri!r}"
    ]


@pytest.mark.parametrize("uri", ["file:///a", "pvc://c/a", "package://p"])
def test_a_token_is_refused_where_none_is_asked_for(uri):
    assert problems_of(manifest(model={"uri": uri, "tokenSecret": "team-a"})) == [
        "spec.model.tokenSecret: tokenSecret applies to hf:// models only; remove it; "
        f"got tokenSecret 'team-a', uri {uri!r}"
    ]


@pytest.mark.parametrize("secret", ["../team-a", "a/b", "Team", ".", "-a", "a" * 254])
def test_a_token_secret_that_no_secret_can_be_named_is_refused(secret):
    [problem] = problems_of(manifest(model={"uri": "hf://org/name", "tokenSecret": secret}))
    assert problem.startswith("spec.model.tokenSecret: got '")


@pytest.mark.parametrize("revision", ["", "main", "v1.0", "refs/pr/1", "0" * 40])
def test_a_hub_model_may_have_a_revision(revision):
    model = {"uri": "hf://org/name", "revision": revision}
    assert parse_endpoint(manifest(model=model)).spec.model.revision == revision


@pytest.mark.parametrize("revision", ["a b", "main\n", "v1;rm", "ä", "a" * 129])
def test_a_revision_that_git_would_not_take_is_refused(revision):
    [problem] = problems_of(manifest(model={"uri": "hf://org/name", "revision": revision}))
    assert problem.startswith("spec.model.revision: got '")


@pytest.mark.parametrize("memory", ["1", "512Mi", "2Gi", "4G", "1000000k", "9999999999", "1T", "1Ti"])
def test_memory_is_a_whole_number_with_a_unit(memory):
    assert parse_endpoint(manifest(resources={"memory": memory})).spec.resources.memory == memory


@pytest.mark.parametrize(
    "memory", ["", "0", "0Gi", "2.5Gi", "2 Gi", "2gi", "2GiB", "-1Gi", "1e9", "2Gi\n", "lots"]
)
def test_other_memory_is_refused_with_examples(memory):
    assert problems_of(manifest(resources={"memory": memory})) == [
        "spec.resources.memory: memory must be a whole number such as 512Mi, 2Gi or 4G; "
        f"got memory {memory!r}"
    ]


@pytest.mark.parametrize("count", [0.1, 0.5, 0.999, 1, 1.0, 2, 16])
def test_accelerators_are_whole_or_a_fraction_of_one(count):
    assert parse_endpoint(manifest(resources={"count": count})).spec.resources.count == count


@pytest.mark.parametrize("count", [1.5, 2.25, 15.999])
def test_a_fraction_of_several_accelerators_is_refused(count):
    assert problems_of(manifest(resources={"count": count})) == [
        f"spec.resources.count: count must be a whole number, or a fraction below 1; got count {count}"
    ]


@pytest.mark.parametrize("profile", ["", "GPU", "-a", "a-", "a.b", "a" * 64, "a\n"])
def test_a_profile_name_that_no_worker_group_can_have_is_refused(profile):
    [problem] = problems_of(manifest(resources={"profile": profile}))
    assert problem.startswith("spec.resources.profile: got '")


def test_more_minimum_than_maximum_replicas_are_refused():
    assert problems_of(manifest(scaling={"minReplicas": 3, "maxReplicas": 2})) == [
        "spec.scaling.minReplicas: minReplicas must not be above maxReplicas; "
        "got minReplicas 3, maxReplicas 2"
    ]


def test_a_batch_that_could_never_fill_is_refused():
    document = manifest(batching={"maxBatchSize": 65}, limits={"maxOngoingRequests": 64})
    assert problems_of(document) == [
        "spec.batching.maxBatchSize: batching.maxBatchSize must not be above limits.maxOngoingRequests: "
        "a batch could never fill; got batching.maxBatchSize 65, limits.maxOngoingRequests 64"
    ]


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_a_label_of_up_to_40_characters_is_a_name(name):
    assert parse_endpoint(manifest(name)).name == name


@pytest.mark.parametrize("name", BAD_NAMES)
def test_another_name_is_refused_with_the_form_that_is_allowed(name):
    assert problems_of(manifest(name)) == [
        "metadata.name: metadata.name must be at most 40 characters of a-z, 0-9 and '-', and begin and end "
        f"with a letter or digit; got metadata.name {name!r}"
    ]


def test_an_empty_name_is_refused():
    assert problems_of(manifest("")) == ["metadata.name: got ''; string should have at least 1 character"]


def test_the_name_of_the_gateway_is_taken():
    assert problems_of(manifest("gateway")) == [
        "metadata.name: metadata.name must not be 'gateway': the gateway has that name; "
        "got metadata.name 'gateway'"
    ]


@pytest.mark.parametrize(
    ("task", "parameters"),
    [
        ("text-classification", {"top_k": 3, "function_to_apply": "none"}),
        ("token-classification", {"aggregation_strategy": "max"}),
        ("zero-shot-classification", {"candidate_labels": ["a"], "hypothesis_template": "It is {}."}),
        ("feature-extraction", {"pooling": "cls", "normalize": True}),
        ("fill-mask", {"top_k": 1}),
        ("text-generation", {"temperature": 1, "return_full_text": True}),
        ("text2text-generation", {"prefix": "summarize: ", "num_beams": 4}),
        ("summarization", {"min_length": 10, "early_stopping": False, "num_beams": 4}),
        ("translation", {"src_lang": "en", "tgt_lang": "de", "max_length": 99}),
        ("question-answering", {"top_k": 3, "max_seq_len": 256, "align_to_words": False}),
    ],
)
def test_each_task_takes_its_parameters(task, parameters):
    assert (
        parse_endpoint(manifest(model={"task": task, "parameters": parameters})).spec.model.parameters
        == parameters
    )


@pytest.mark.parametrize(
    ("task", "parameters", "named", "allowed"),
    [
        ("text-classification", {"topk": 1}, "topk", "function_to_apply, top_k"),
        ("fill-mask", {"pooling": "cls"}, "pooling", "top_k"),
        ("text-classification", {"top_k": True}, "top_k: got True", "integer"),
        ("text-classification", {"top_k": 0}, "top_k: got 0", "greater than or equal to 1"),
        ("text-generation", {"temperature": 0.0}, "temperature: got 0.0", "greater than 0"),
        (
            "zero-shot-classification",
            {"hypothesis_template": "no"},
            "hypothesis_template: got 'no'",
            "pattern",
        ),
        ("feature-extraction", {"pooling": "sum"}, "pooling: got 'sum'", "'mean', 'cls' or 'max'"),
    ],
)
def test_a_parameter_that_the_task_does_not_take_is_named_with_what_is_allowed(
    task, parameters, named, allowed
):
    [problem] = problems_of(manifest(model={"task": task, "parameters": parameters}))
    assert problem.startswith("spec.model.parameters")
    assert named in problem
    assert allowed in problem


@pytest.mark.parametrize("value", [None, float("nan"), {"a": 1}, [1], [["a"]]])
def test_a_parameter_that_no_task_could_take_is_named(value):
    problems = problems_of(manifest(model={"parameters": {"top_k": value}}))
    assert problems == [
        f"spec.model.parameters.top_k: got {value!r}; must be text, a number, true, false or a list of texts"
    ]


@pytest.mark.parametrize("parameters", ["top_k", 1, ["top_k"]])
def test_parameters_that_are_no_mapping_are_refused_as_such(parameters):
    [problem] = problems_of(manifest(model={"parameters": parameters}))
    assert problem == f"spec.model.parameters: got {parameters!r}; input should be a valid dictionary"


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (["a", "b" * 140_000], "candidate_labels.1: got 'bbb"),
        (["a"] * 101, "candidate_labels: got ['a'"),
    ],
)
def test_labels_have_a_greatest_length_and_number(labels, problem):
    parameters = {"candidate_labels": labels}
    [found] = problems_of(manifest(model={"task": "zero-shot-classification", "parameters": parameters}))
    assert found.startswith(f"spec.model.parameters.{problem}")
    assert len(found) < 300


def test_early_stopping_is_true_or_false():
    parameters = {"early_stopping": "never"}
    [found] = problems_of(manifest(model={"task": "summarization", "parameters": parameters}))
    assert found == "spec.model.parameters.early_stopping: got 'never'; Input should be a valid boolean"


def test_more_than_32_parameters_are_refused_with_the_number():
    [problem] = problems_of(manifest(model={"parameters": {f"p{number}": 1 for number in range(33)}}))
    assert problem.startswith("spec.model.parameters: got {")
    assert "at most 32 items" in problem


def test_a_parameter_whose_name_is_no_text_is_refused_as_such():
    [problem] = problems_of(manifest(model={"parameters": {1: "a"}}))
    assert "valid string" in problem
