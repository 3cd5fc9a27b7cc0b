"""The operator's loop over a small world, with what it writes noted."""

from endpoint_operator.controller.dashboard import ServeStatus
from endpoint_operator.controller.metrics import Metrics
from endpoint_operator.controller.probes import Pulse
from endpoint_operator.controller.profiles_file import CatalogueFile
from endpoint_operator.controller.reconciler import Reconciler
from endpoint_operator.controller.settings import Settings
from tests.unit.small_world import World

PROFILES = "profiles: [{name: cpu, cpus: 8, memory: 16Gi}]"


class FakeCluster:
    """The calls of `Cluster` on a `World`; what is written is noted."""

    def __init__(self, world):
        self.world = world
        self.written = []
        self.announced = []
        self.lists = 0
        self.hidden = set()
        self.kind_is_leaving = False
        self.errors = {}

    def _meet(self, call):
        error = self.errors.get(call)
        if error is not None:
            raise error

    async def list_endpoints(self):
        self._meet("list")
        self.lists += 1
        return [stored for name, stored in self.world.endpoints.items() if name not in self.hidden]

    async def has_endpoint(self, name):
        return name in self.world.endpoints

    async def is_kind_leaving(self):
        return self.kind_is_leaving

    async def get_ray_service(self):
        self._meet("service")
        return self.world.service

    async def apply_serve_config(self, service, document):
        self._meet("document")
        self.written.append("document")
        metadata = self.world.service["metadata"]
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

    async def was_refused(self, service, since):
        return False

    async def announce(self, announcement, now):
        self.announced.append(announcement.reason)


class Scene:
    """A world and a loop over it."""

    def __init__(self, folder, *names, **settings):
        path = folder / "profiles.yaml"
        path.write_text(PROFILES)
        self.world = World(*names)
        self.cluster = FakeCluster(self.world)
        self.metrics = Metrics()
        self.pulse = Pulse()
        self.reconciler = Reconciler(
            Settings(namespace="models", ray_service="ray", profiles_file=path, **settings),
            self.cluster,
            CatalogueFile(path),
            ServeStatus("", None, 10, 30),
            self.metrics,
            self.pulse,
        )

    async def look(self):
        """Look as often as is due at once, and return what was written."""
        self.cluster.written.clear()
        while await self.reconciler.look() == 0:
            pass
        return list(self.cluster.written)

    async def serve(self, **applications):
        """Bring everything up."""
        await self.look()
        self.world.follow()
        await self.look()
        self.world.follow(**applications)
        await self.look()

    def metric(self, name):
        text = self.metrics.exposition(0).decode()
        line = next(line for line in text.splitlines() if line.startswith(f"model_endpoints_operator_{name}"))
        return float(line.split()[-1])
