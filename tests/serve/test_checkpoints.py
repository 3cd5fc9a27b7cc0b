"""A controller of Serve that finds a checkpoint which it cannot read."""

from serve_app.checkpoints import KEYS
from tests.serve.prepared_controller import lines_of

SECONDS = 240
# The one that is read last, and one of the others; each takes ten seconds.
UNREADABLE = (KEYS[0], KEYS[2])

SCRIPT = """
import sys, time
import ray
from ray import serve
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE
from ray.serve._private.storage.kv_store import RayInternalKVStore

@serve.deployment
class Here:
    def pid(self):
        import os
        return os.getpid()

def replicas():
    named = ray.util.list_named_actors(all_namespaces=True)
    return {actor["name"] for actor in named if actor["name"].startswith("SERVE_REPLICA::")}

# The namespace in which Ray's dashboard starts Serve.
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, namespace=SERVE_NAMESPACE)
for key in sys.argv[1:]:
    handle = serve.run(Here.bind(), name="here", route_prefix=None)
    assert handle.pid.remote().result()
    before = replicas()
    assert len(before) == 1
    RayInternalKVStore(f"ray-serve-{SERVE_NAMESPACE}").put(key, b"no pickle")
    ray.kill(ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE), no_restart=False)
    while serve.status().applications or replicas() & before:
        time.sleep(0.2)
    print("starts without", key, flush=True)
"""


def test_it_starts_without_and_takes_applications_again():
    own, done = lines_of(SCRIPT, *UNREADABLE, start="starts without", seconds=SECONDS)
    assert own == [f"starts without {key}" for key in UNREADABLE], done.stderr
