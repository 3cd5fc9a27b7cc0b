"""A controller of Serve that was started again while a replica does not answer."""

from tests.serve.prepared_controller import lines_of

SECONDS = 120
# Ray's own patience, shortened; and for how long the replica does not answer.
PATIENCE, SILENCE = "2", "8"

SCRIPT = """
import os, signal, sys, time
import ray
from ray import serve
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

@serve.deployment
class Here:
    def pid(self):
        import os
        return os.getpid()

def pid_of(controller):
    try:
        return ray.get(controller.get_pid.remote())
    except ray.exceptions.RayActorError:
        return None

ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, namespace=SERVE_NAMESPACE)
handle = serve.run(Here.bind(), name="here", route_prefix=None)
pid = handle.pid.remote().result()
os.kill(pid, signal.SIGSTOP)
controller = ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
before = pid_of(controller)
ray.kill(controller, no_restart=False)
# Its next one asks the replica before it answers anyone.
while pid_of(controller) in (None, before):
    time.sleep(0.1)
time.sleep(float(sys.argv[1]))
print("still running:", serve.status().applications["here"].status == "RUNNING", flush=True)
os.kill(pid, signal.SIGCONT)
while serve.status().applications["here"].status != "RUNNING":
    time.sleep(0.2)
print("still the same:", handle.pid.remote().result() == pid, flush=True)
"""


def test_a_replica_that_answers_late_is_kept():
    variables = {"RAY_SERVE_SLOW_STARTUP_WARNING_S": PATIENCE}
    own, done = lines_of(SCRIPT, SILENCE, start="still", seconds=SECONDS, variables=variables)
    assert own == ["still running: False", "still the same: True"], done.stderr
