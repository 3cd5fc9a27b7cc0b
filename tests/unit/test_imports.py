"""What an import brings along decides how fast a worker starts, so it is looked at from outside."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

HEAVY = ("ray", "torch", "transformers", "kopf", "kubernetes", "huggingface_hub")


def outcome_of(program):
    """Run `program` in a fresh interpreter and return what it prints as JSON, with the heavy modules."""
    ending = f"\nimport json, sys\nprint(json.dumps([result, [m for m in {HEAVY} if m in sys.modules]]))"
    paths = os.pathsep.join([str(ROOT), str(ROOT / "operator")])
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program + ending],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def built():
    """Both applications, built as Ray's build task does it: from the import path and a dictionary."""
    return outcome_of(
        """
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary as call
from ray._common.utils import import_attr
from serve_app.contract import BUILD_IMPORT_PATH, GATEWAY_IMPORT_PATH
args = {"name": "a", "uri": "file:///a", "revision": "", "task": "fill-mask", "dtype": "auto"}
model = call(import_attr(BUILD_IMPORT_PATH), args)._bound_deployment
gateway = call(import_attr(GATEWAY_IMPORT_PATH), {})._bound_deployment
given = model.init_args[0]
result = [type(given).__name__, given.model_dump(mode="json"), model.name, gateway.name]
"""
    )


def test_compiling_needs_nothing_heavy():
    assert outcome_of("import endpoint_operator.serveconfig.compiler\nresult = None") == [None, []]


def test_the_command_starts_without_anything_heavy():
    assert outcome_of("import endpoint_operator.cli.main\nresult = None") == [None, []]


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        # HAProxy waits for the one at each change of replicas, every new worker for the other.
        ("serve_app.http.haproxy", ["pydantic", "starlette", *HEAVY]),
        ("serve_app.forkserver.client", ["pydantic", "starlette", "numpy", *HEAVY]),
        ("serve_app.engine.batch_engine", ["starlette", *HEAVY]),
    ],
)
def test_what_a_module_does_not_import(module, absent):
    program = f"import sys, {module}\nresult = [name for name in {absent} if name in sys.modules]"
    assert outcome_of(program) == [[], []]


def test_the_head_reads_the_policy_of_scaling_without_anything_else_of_ours():
    program = "import sys, serve_app.scaling\nresult = [name for name in sys.modules if name[:6] == 'serve_']"
    assert outcome_of(program) == [["serve_app", "serve_app.scaling"], ["ray"]]


def test_a_build_needs_ray_and_nothing_heavier(built):
    _, heavy = built
    assert heavy == ["ray"]


def test_a_build_receives_its_arguments_as_a_checked_model(built):
    [kind, args, *_], _ = built
    assert kind == "ModelArgs"
    given = {"name": "a", "uri": "file:///a", "task": "fill-mask"}
    assert args == given | {"revision": "", "dtype": "auto", "token_secret": ""}


def test_the_deployments_have_the_names_that_the_configuration_uses(built):
    [_, _, *names], _ = built
    assert names == ["Model", "Gateway"]


def test_ray_can_read_the_annotation_of_build():
    tree = ast.parse((ROOT / "serve_app/app.py").read_text(encoding="utf-8"))
    futures = [
        node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "__future__"
    ]
    assert futures == []
