"""What Serve's controller says of an application that it builds anew, and of one whose build has failed."""

import json
import os

from tests.serve.prepared_controller import lines_of

SECONDS = 180

APPLICATION = """
import time
from ray import serve

@serve.deployment
class Here:
    def __call__(self):
        return "here"

def build(args):
    time.sleep(float(args["seconds"]))
    if args.get("fails"):
        raise ValueError("no such thing")
    return Here.bind()
"""

SCRIPT = """
import json, sys, time
import ray
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema

def deploy(**args):
    application = {"name": "here", "import_path": "slow_application:build", "args": args}
    _get_global_client().deploy_apps(ServeDeploySchema(applications=[application]))

def seen():
    client = _get_global_client()
    application = client.get_serve_details()["applications"]["here"]
    replicas = [r["state"] for d in application["deployments"].values() for r in d["replicas"]]
    ingress = ray.get(client._controller.get_ingress_deployment_name.remote("here"))
    return {"status": application["status"], "replicas": replicas, "ingress": ingress}

def until(*statuses):
    while (found := seen())["status"] not in statuses:
        time.sleep(0.1)
    return found

ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
serve.start()
deploy(seconds=0)
first = until("RUNNING", "DEPLOY_FAILED")
deploy(seconds=3)
built = until("DEPLOYING")
again = until("RUNNING", "DEPLOY_FAILED")
deploy(seconds=1, fails=True)
print(json.dumps([first, built, again, until("RUNNING", "DEPLOY_FAILED")]))
"""


def test_replicas_are_known_while_an_application_is_built_anew_and_when_that_fails(tmp_path):
    (tmp_path / "slow_application.py").write_text(APPLICATION)
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    own, done = lines_of(SCRIPT, start="[{", seconds=SECONDS, variables={"PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    [line] = own
    states = json.loads(line)
    assert [state["status"] for state in states] == ["RUNNING", "DEPLOYING", "RUNNING", "DEPLOY_FAILED"]
    assert [state["ingress"] for state in states] == ["Here"] * 4
    assert [state["replicas"] for state in states] == [["RUNNING"]] * 4
