import pytest
from pydantic import BaseModel, Field, ValidationError

from endpoint_operator.api.types import ModelEndpoint, parse_endpoint
from endpoint_operator.api.validation import Problem, describe
from serve_app.text import LONGEST_SHOWN
from tests.unit.builders import manifest, with_value


def problems_of(document):
    with pytest.raises(ValidationError) as caught:
        parse_endpoint(document)
    return describe(caught.value, ModelEndpoint)


def test_a_problem_reads_as_its_field_and_a_sentence():
    assert str(Problem(("spec", "conditions", 0), "is required")) == "spec.conditions.0: is required"


def test_a_problem_of_the_whole_document_is_the_sentence_alone():
    assert str(Problem((), "got 1; must be a mapping")) == "got 1; must be a mapping"


def test_a_path_leads_from_the_root_by_the_names_of_the_manifest():
    [problem] = problems_of(with_value(manifest(), "spec.limits.maxInputTokens", 0))
    assert problem.path == ("spec", "limits", "maxInputTokens")


def test_a_rule_over_fields_points_to_the_first_of_them():
    [problem] = problems_of(manifest(batching={"maxBatchSize": 65}))
    assert problem.path == ("spec", "batching", "maxBatchSize")


def test_a_value_that_fits_no_member_of_a_union_is_one_problem():
    [problem] = problems_of(manifest(model={"parameters": {"top_k": {"a": 1}}}))
    assert problem.path == ("spec", "model", "parameters", "top_k")


def test_two_fields_are_two_problems():
    problems = problems_of(manifest(model={"dtype": "int4"}, suspend="no"))
    assert [problem.path for problem in problems] == [("spec", "model", "dtype"), ("spec", "suspend")]


def test_a_shown_value_is_cut_where_it_gets_long():
    class Short(BaseModel):
        word: str = Field(max_length=3)

    with pytest.raises(ValidationError) as caught:
        Short(word="x" * 500)
    [problem] = describe(caught.value, Short)
    shown = repr("x" * 500)[:LONGEST_SHOWN]
    assert problem.message == f"got {shown}…; string should have at most 3 characters"


def test_a_name_with_braces_is_shown_as_it_is():
    [problem] = problems_of(manifest("{{name}}"))
    assert problem.message.endswith("got metadata.name '{{name}}'")
