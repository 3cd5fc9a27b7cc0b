"""The operator's loop over a small world, with what it writes noted."""

from endpoint_operator.controller.loop import Reconciler
from endpoint_operator.controller.metrics import Metrics
from endpoint_operator.controller.probes import Heartbeat
from endpoint_operator.controller.profiles_file import ProfilesFile
from endpoint_operator.controller.ray.dashboard import DashboardClient
from endpoint_operator.controller.ray.usage import UsageClient
from endpoint_operator.controller.settings import Settings
from endpoint_operator.kube.errors import ConflictError
from tests.unit.small_world import World

PROFILES = "profiles: [{name: cpu, cpus: 8, memory: 16Gi}]"


class FakeClient:
    """The requests of `KubeClient` on a `World`; what is written is noted."""

    def __init__(self, world):
        self.world = world
        self.written = []
        self.events = []
        self.lists = 0
        self.hidden = set()
        self.crd_is_terminating = False
        self.errors = {}
        # How often a write of the document meets a newer RayService, and what has happened to that besides.
        self.conflicts = 0
        self.on_conflict = lambda: None

    def _meet(self, call):
        error = self.errors.get(call)
        if error is not None:
            raise error

    async def list_endpoints(self):
        self._meet("list")
        self.lists += 1
        return [stored for name, stored in self.world.endpoints.items() if name not in self.hidden]

    async def has_endpoint(self, name):
        found = self.world.endpoints.get(name)
        return found is not None and "deletionTimestamp" not in found["metadata"]

    async def is_crd_terminating(self):
        return self.crd_is_terminating

    async def get_ray_service(self):
        self._meet("service")
        return self.world.service

    async def apply_serve_config(self, uid, resource_version, document):
        self._meet("document")
        metadata = self.world.service["metadata"]
        if self.conflicts:
            self.conflicts -= 1
            metadata["resourceVersion"] = str(int(metadata["resourceVersion"]) + 1)
            self.on_conflict()
            raise ConflictError("the object has been modified")
        assert (metadata["uid"], metadata["resourceVersion"]) == (uid, resource_version)
        self.written.append("document")
        metadata["generation"] += 1
        metadata["resourceVersion"] = str(int(metadata["resourceVersion"]) + 1)
        self.world.service["spec"]["serveConfigV2"] = document
        return self.world.service

    async def apply_status(self, name, uid, resource_version, status):
        self._meet(name)
        self.written.append(name)
        stored = self.world.endpoints[name]
        assert (stored["metadata"]["uid"], stored["metadata"]["resourceVersion"]) == (uid, resource_version)
        version = str(int(resource_version) + 1000)
        self.world.endpoints[name] = stored | {
            "status": status,
            "metadata": stored["metadata"] | {"resourceVersion": version},
        }
        return self.world.endpoints[name]

    async def update_failures(self, uid, since):
        return []

    async def create_event(self, event):
        self.events.append(event["reason"])


class Scene:
    """A world and a loop over it."""

    def __init__(self, folder, *names, **settings):
        path = folder / "profiles.yaml"
        path.write_text(PROFILES)
        self.world = World(*names)
        self.client = FakeClient(self.world)
        self.metrics = Metrics()
        self.heartbeat = Heartbeat()
        self.usage = UsageClient("", None, 60)
        self.reconciler = Reconciler(
            Settings(namespace="models", ray_service="ray", profiles_file=path, **settings),
            self.client,
            ProfilesFile(path),
            DashboardClient("", None, 10, 30),
            self.usage,
            self.metrics,
            self.heartbeat,
        )

    async def reconcile(self):
        """Reconcile as often as is due at once, and return what was written."""
        self.client.written.clear()
        while (await self.reconciler.reconcile()).requeue:
            pass
        return list(self.client.written)

    async def serve(self, **applications):
        """Bring everything up."""
        await self.reconcile()
        self.world.follow()
        await self.reconcile()
        self.world.follow(**applications)
        await self.reconcile()

    def metric(self, name):
        text = self.metrics.exposition(0).decode()
        line = next(line for line in text.splitlines() if line.startswith(f"model_endpoints_operator_{name}"))
        return float(line.split()[-1])
