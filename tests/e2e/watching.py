"""Clients and a look at the statuses, while something happens that nobody may notice."""

import threading
import time
from contextlib import ExitStack, contextmanager

# What the operator may take to see that Ray's head is gone: its look at the dashboard, and its patience.
LONGEST_LIE_SECONDS = 60


class Watch(threading.Thread):
    """Looks all the time at the endpoints and the RayService; times are seconds since it began."""

    def __init__(self, release, names, may_be):
        super().__init__(daemon=True)
        self.release, self.names, self.may_be = release, names, may_be
        self.not_ready = []
        # The active Ray clusters, one after another.
        self.clusters = []
        # When KubeRay first reported that an application fails on the pending cluster, by endpoint.
        self.failed = {}
        # When an endpoint first held the upgrade, by endpoint.
        self.blocked = {}
        self.looks = 0
        self.began = time.monotonic()
        self.done = threading.Event()

    def run(self):
        while not self.done.wait(1):
            self.look()

    def look(self):
        items = self.release.get("modelendpoints,rayservices")["items"]
        now = time.monotonic() - self.began
        for item in items:
            if item["kind"] == "RayService":
                self._note_service(item["status"], now)
            else:
                self._note_endpoint(item["metadata"]["name"], item.get("status", {}), now)
        self.looks += 1

    def _note_service(self, status, now):
        active = status["activeServiceStatus"]["rayClusterName"]
        if self.clusters[-1:] != [active]:
            self.clusters.append(active)
        pending = status.get("pendingServiceStatus", {}).get("applicationStatuses", {})
        for name, application in pending.items():
            if application["status"] == "DEPLOY_FAILED":
                self.failed.setdefault(name, now)

    def _note_endpoint(self, name, status, now):
        conditions = {condition["type"]: condition for condition in status.get("conditions", [])}
        if name in self.names and conditions["Ready"]["status"] not in self.may_be:
            self.not_ready.append(f"{name}, {now:.0f} s: {conditions['Ready']}")
        if "UpgradeBlocked" in conditions:
            self.blocked.setdefault(name, now)


@contextmanager
def undisturbed(release, names, note, may_be=("True",)):
    """Send `names` more than 10 requests a second; none may fail, and Ready must stay one of `may_be`.

    One of the two clients of each model opens a connection for each request.
    """
    watch = Watch(release, names, may_be)
    with ExitStack() as stack:
        # A Service without endpoints refuses new connections, and those that are kept do not notice.
        loads = [
            stack.enter_context(release.load(name, clients=2, pause=0.25, connecting=1)) for name in names
        ]
        watch.start()
        stack.callback(watch.join, 30)
        stack.callback(watch.done.set)
        yield watch
    seconds = time.monotonic() - watch.began
    requests = sum(load.statuses.total() for load in loads)
    failures = [failure for load in loads for failure in load.failures]
    slowest = max(loads, key=lambda load: load.slowest)
    told = f"slowest {slowest.slowest:.1f} s, at {slowest.slowest_at}"
    note("requests", f"{requests}, {requests / seconds:.0f} a second, {told}")
    note("failed requests", len(failures))
    assert failures == []
    assert watch.not_ready == []
    assert watch.looks > 10


class _Truth(threading.Thread):
    """Looks each second whether the model answers and what its status says."""

    def __init__(self, release, name):
        super().__init__(daemon=True)
        self.release, self.name = release, name
        self.longest_lie = 0.0
        self.done = threading.Event()

    def run(self):
        lie_since = None
        while not self.done.wait(1):
            lies = self.release.answers(self.name) is None and self.release.ready(self.name)[0] == "True"
            lie_since = (lie_since or time.monotonic()) if lies else None
            if lie_since:
                self.longest_lie = max(self.longest_lie, time.monotonic() - lie_since)


@contextmanager
def truthful(release, name, note):
    """Send `name` requests while something fails; it must answer again afterwards.

    Its status may say Ready for LONGEST_LIE_SECONDS at most while it does not answer.
    """
    truth = _Truth(release, name)
    with ExitStack() as stack:
        load = stack.enter_context(release.load(name, clients=2))
        truth.start()
        stack.callback(truth.join, 30)
        stack.callback(truth.done.set)
        yield load
        release.wait_for("it answers", lambda: release.answers(name), seconds=400)
        release.wait_for("it is Ready", lambda: release.ready(name)[0] == "True", seconds=120)
        time.sleep(3)
    lie = f"{truth.longest_lie:.0f} s Ready in error"
    note("requests", f"{load.statuses[200]} answers, {len(load.failures)} failed, {lie}")
    assert release.answers(name)["label"] == "POSITIVE"
    assert truth.longest_lie < LONGEST_LIE_SECONDS
