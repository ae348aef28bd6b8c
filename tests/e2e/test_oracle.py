"""What clients were told is true afterwards, whatever happened meanwhile: every acknowledged start is there, every acknowledged
signal stands exactly once, in every region, on the current run of its chain. Clients and workers work all the time while regions
are moved, cut, killed."""

import os
import random
import threading
import uuid

import grpc
import pytest

from cluster import Cluster
from eventually import eventually
from raw import Node, complete_workflow, continue_as_new, start_timer

pytestmark = pytest.mark.antipode

AGAIN = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)


# How much longer than usual the crowd goes on between two events: E2E_SCALE=10 for a long look.
SCALE = int(os.environ.get("E2E_SCALE", "1"))


class Crowd:
    """Clients that signal a few workflows through all regions, repeating a request under its id until it is acknowledged, and a
    worker in each region that completes every task."""

    def __init__(self, cluster, name, clients=4, workflows=4):
        self.cluster, self.name = cluster, name
        self.ids = [f"{name}-{n}" for n in range(workflows)]
        self.acknowledged, self.unknown, self.refused = {w: [] for w in self.ids}, {w: [] for w in self.ids}, []
        self.tasks = 0
        self._lock, self._stop, self._count = threading.Lock(), threading.Event(), 0
        for workflow_id in self.ids:
            cluster.east.start(workflow_id, name)
            cluster.same(workflow_id)
        jobs = [(self._client, n) for n in range(clients)] + [(self._worker, r) for r in cluster.names]
        self._threads = [threading.Thread(target=job, args=(argument,), daemon=True) for job, argument in jobs]
        for thread in self._threads:
            thread.start()

    def _client(self, number):
        region = self.cluster.names[number % len(self.cluster.names)]
        node = Node(self.cluster.address(region))
        while not self._stop.is_set():
            with self._lock:
                self._count += 1
                count = self._count
            workflow_id = self.ids[count % len(self.ids)]
            self._signal(node, workflow_id, f'"{number}-{count}"')
            self._stop.wait(0.005)
        node.close()

    def _signal(self, node, workflow_id, value):
        """One request until it is acknowledged. When the test ends first, nobody knows whether it was done."""
        request = str(uuid.uuid4())
        while True:
            try:
                node.signal(workflow_id, "s", value, request_id=request, timeout=3)
            except grpc.RpcError as error:
                if error.code() not in AGAIN:
                    self.refused.append((workflow_id, value, error.code(), error.details()))
                    return
                if self._stop.is_set():
                    with self._lock:
                        self.unknown[workflow_id].append(value)
                    return
                self._stop.wait(0.02)
            else:
                with self._lock:
                    self.acknowledged[workflow_id].append(value)
                return

    def _worker(self, region):
        node = Node(self.cluster.address(region))
        while not self._stop.is_set():
            try:
                task = node.poll_workflow(self.name, timeout=3)
                if task:
                    node.complete_workflow_task(task.task_token)
                    with self._lock:
                        self.tasks += 1
            except grpc.RpcError:
                self._stop.wait(0.02)
        node.close()

    def more(self, amount=40 * SCALE):
        """Waits until that many more signals are acknowledged: the crowd was not stopped by what just happened."""
        have = self.size()
        eventually(f"{amount} more signals are acknowledged", lambda: self.size() >= have + amount, 60)

    def size(self):
        with self._lock:
            return sum(map(len, self.acknowledged.values()))

    def check(self):
        """Ends the crowd; then every region holds every acknowledged signal exactly once."""
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
        assert not self.refused, self.refused[:5]
        for workflow_id in self.ids:

            def all_once(workflow_id=workflow_id):
                active = self.cluster.node(self.cluster.active("east"))
                seen = active.signals(workflow_id)
                missing = set(self.acknowledged[workflow_id]) - set(seen)
                if missing:  # one may wait for a task that nobody holds any more; the next task brings it
                    task = active.poll_workflow(self.name, timeout=4)
                    if task:
                        active.complete_workflow_task(task.task_token)
                assert not missing, f"{len(missing)} acknowledged signals of {workflow_id} are missing: {sorted(missing)[:5]}"
                strange = set(seen) - set(self.acknowledged[workflow_id]) - set(self.unknown[workflow_id])
                assert not strange, f"signals that nobody sent: {sorted(strange)[:5]}"
                return True

            eventually(f"all signals of {workflow_id} are there", all_once, 40)
            seen = self.cluster.east.signals(workflow_id)
            doubled = [signal for signal in seen if seen.count(signal) > 1]
            assert not doubled, f"doubled in {workflow_id}: {sorted(set(doubled))[:5]}"
            self.cluster.same(workflow_id)
            assert self.cluster.west.signals(workflow_id) == self.cluster.east.signals(workflow_id)
        assert self.tasks > 0


def settled(cluster):
    """Both regions name the same active region and version."""

    def same():
        return len({(cluster.active(region), cluster.version(region)) for region in cluster.names}) == 1

    eventually("the regions agree about the namespace", same)


def test_graceful_failovers_under_load_lose_and_double_nothing(cluster, name):
    crowd = Crowd(cluster, name)
    for to in ("west", "east", "west", "east"):
        crowd.more()
        assert cluster.failover(to)["forced"] is False
        settled(cluster)
    crowd.more()
    crowd.check()
    assert cluster.version("east") == 21
    for workflow_id in crowd.ids:
        assert len(cluster.inspect("east", workflow_id).branches) == 1, "a graceful move makes no second branch"


def test_splits_under_load_lose_and_double_nothing(cluster, name):
    """Each round: cut, force the other region, let both sides accept signals, heal."""
    crowd = Crowd(cluster, name)
    for to in ("west", "east", "west"):
        crowd.more()
        cluster.cut_both()
        assert cluster.failover(to, at=to, force=True)["forced"] is True
        crowd.more()
        cluster.heal_both()
        settled(cluster)
    crowd.more()
    crowd.check()
    trees = [len(cluster.inspect("east", workflow_id).branches) for workflow_id in crowd.ids]
    assert max(trees) > 1, "both sides wrote at least once"


def test_kills_under_load_lose_and_double_nothing(cluster, name):
    crowd = Crowd(cluster, name)
    for _ in range(3):
        crowd.more()
        cluster.kill()
        cluster.start()
        crowd.more()
        cluster.failover("west" if cluster.active("east") == "east" else "east")
        settled(cluster)
    crowd.check()


def test_kills_in_a_split_under_load_lose_and_double_nothing(cluster, name):
    """The process dies while the sides have diverged; after the start the link works again, and the rest is derived."""
    crowd = Crowd(cluster, name)
    for to in ("west", "east"):
        crowd.more()
        cluster.cut_both()
        cluster.failover(to, at=to, force=True)
        crowd.more()
        cluster.kill()
        cluster.start()
        cluster.heal_both()
        settled(cluster)
    crowd.more()
    crowd.check()


def test_a_process_killed_in_the_middle_of_a_failover_can_be_asked_again(cluster, name):
    """Wherever the kill falls, the same command brings the namespace there afterwards, and writes are accepted by one region."""
    cluster.east.start(name, name)
    for number in range(6):
        to = "west" if cluster.active("east") == "east" else "east"
        asked = threading.Thread(target=lambda to=to: cluster.failover(to, ok=False), daemon=True)
        asked.start()
        random.Random(number).choice([lambda: None, lambda: cluster.node("east").describe(name)])()
        asked.join(0.004 * number)
        cluster.kill()
        asked.join(30)
        cluster.start()
        eventually("the same command succeeds", lambda to=to: cluster.failover(to, ok=False).code == 0)
        settled(cluster)
        assert cluster.active("east") == to
        cluster.node(to).signal(name, "s", f'"{number}"')
    assert sorted(cluster.east.signals(name)) == [f'"{n}"' for n in range(6)]
    cluster.same(name)


# -- particular conflicts ----------------------------------------------------------------------------------------------


def split(cluster):
    cluster.cut_both()
    cluster.failover("west", at="west", force=True)


def healed(cluster):
    cluster.heal_both()
    settled(cluster)


def open_runs(cluster, region, workflow_id):
    return [r["run_id"] for r in cluster.inspect(region, workflow_id).answer["runs"] if r["state"] in ("Created", "Running")]


def test_one_request_sent_to_both_sides_is_done_once(cluster, name):
    """B3: the client did not hear east's answer and repeats its request at west."""
    cluster.east.start(name, name)
    cluster.same(name)
    request = str(uuid.uuid4())
    cluster.cut_both()
    cluster.east.signal(name, "s", '"once"', request_id=request)
    cluster.failover("west", at="west", force=True)
    cluster.west.signal(name, "s", '"once"', request_id=request)
    healed(cluster)
    cluster.west.signal(name, "s", '"marker"')
    cluster.same(name)
    eventually("no more, no less", lambda: cluster.east.signals(name) == ['"once"', '"marker"'])


def test_the_same_id_started_on_both_sides_has_one_open_run(cluster, name):
    split(cluster)
    ours, theirs = cluster.east.start(name, name), cluster.west.start(name, name)
    assert ours != theirs
    cluster.east.signal(name, "s", '"to the run of east"')
    cluster.west.signal(name, "s", '"to the run of west"')
    healed(cluster)
    cluster.same(name)
    for region in cluster.names:
        eventually("one run is open", lambda region=region: open_runs(cluster, region, name) == [theirs])
        assert cluster.inspect(region, name).run_id == theirs
    described = cluster.west.describe(name, ours).workflow_execution_info
    assert described.status != 1, "the run of east is not shown as running"
    told = cluster.west.signals(name, theirs)
    unclaimed = [u for r in (ours, theirs) for u in cluster.inspect("west", name, r).answer["unclaimed"]]
    assert '"to the run of west"' in told
    assert '"to the run of east"' in told or unclaimed, "applied, or filed with a reason: never dropped"
    cluster.west.step(name, complete_workflow())
    assert cluster.same(name).status == "COMPLETED"


def test_a_run_that_ended_on_the_losing_side_is_open_again(cluster, name):
    cluster.east.start(name, name)
    cluster.same(name)
    split(cluster)
    cluster.east.step(name, complete_workflow('"east"'))
    cluster.west.step(name, start_timer("t", 3600))
    healed(cluster)
    assert cluster.same(name).status == "RUNNING"
    cluster.west.signal(name, "s")
    cluster.west.step(name, complete_workflow('"west"'))
    assert cluster.same(name).status == "COMPLETED"
    last = cluster.east.history(name)[-1].workflow_execution_completed_event_attributes
    assert last.result.payloads[0].data == b'"west"'
    listed = cluster.temporal("workflow", "list", "--query", f'WorkflowId = "{name}"', "-o", "json").json()
    assert [w["status"] for w in listed] == ["WORKFLOW_EXECUTION_STATUS_COMPLETED"]


def test_continued_as_new_on_both_sides(cluster, name):
    """Each side has a second run of its own. One is current everywhere; signals of the other one's chain are not lost."""
    first = cluster.east.start(name, name)
    cluster.same(name)
    split(cluster)
    for region in cluster.names:
        node = cluster.node(region)
        node.signal(name, "s", f'"first run, {region}"')
        node.step(name, continue_as_new(name))
        node.signal(name, "s", f'"second run, {region}"')
    winner = cluster.west.describe(name).workflow_execution_info.execution.run_id
    loser = cluster.east.describe(name).workflow_execution_info.execution.run_id
    assert len({first, winner, loser}) == 3
    healed(cluster)
    cluster.same(name)
    for region in cluster.names:
        eventually("one run is open", lambda region=region: open_runs(cluster, region, name) == [winner])
    said = cluster.same(name, first)
    assert said.status == "CONTINUED_AS_NEW" and said.items[-1][1] == 2

    def all_told():
        told = cluster.west.signals(name, first) + cluster.west.signals(name, winner)
        assert len(set(told)) == len(told), told
        runs = (first, winner, loser)
        filed = [u for r in runs for u in cluster.inspect("west", name, r).answer["unclaimed"]]
        return {'"first run, west"', '"second run, west"'} <= set(told) and len(told) + len(filed) >= 4

    eventually("every signal is applied or filed", all_told)
    cluster.same(name)


def test_a_run_terminated_on_the_losing_side(cluster, name):
    """R514, B4: the operator's wish stands: the same run is terminated in the winner."""
    run_id = cluster.east.start(name, name)
    cluster.same(name)
    split(cluster)
    cluster.east.terminate(name, run_id)
    cluster.west.step(name, start_timer("t", 3600))
    healed(cluster)
    eventually("terminated in both", lambda: cluster.west.names(name)[-1] == "WorkflowExecutionTerminated")
    said = cluster.same(name)
    assert said.status == "TERMINATED" and said.items[-1][1] == 2


def test_three_regions_agree_after_one_was_cut_off(tmp_path, name):
    """East is cut from both others; north, which was linked to west all the time, sees the losing branch too."""
    three = Cluster(tmp_path, regions=3)
    try:
        three.start()
        three.east.start(name, name)
        eventually("all have it", lambda: all(three.node(r).has_run(name) for r in three.names))
        for other in ("west", "north"):
            three.cut("east", other)
            three.cut(other, "east")
        three.east.signal(name, "s", '"east"')
        three.east.step(name, start_timer("of east", 3600))
        three.failover("west", at="west", force=True)
        three.west.signal(name, "s", '"west"')
        eventually("north follows west", lambda: three.node("north").signals(name) == ['"west"'])
        for other in ("west", "north"):
            three.heal("east", other)
            three.heal(other, "east")
        eventually("both signals stand", lambda: set(three.west.signals(name)) == {'"east"', '"west"'})

        def agreed():
            seen = [three.inspect(region, name) for region in three.names]
            assert len({s.digest for s in seen}) == 1, [s.answer for s in seen]
            assert len({str(s.tree) for s in seen}) == 1 and len(seen[0].branches) == 2
            return len({three.node(region).history_bytes(name) for region in three.names}) == 1

        eventually("all three agree", agreed)
        assert int(three.failover("north")["version"]) == 3
        three.node("north").signal(name, "s", '"north"')
        three.node("north").step(name, complete_workflow())
        eventually("completed everywhere", lambda: {three.inspect(r, name).status for r in three.names} == {"COMPLETED"})
        eventually("all three agree", agreed)
    finally:
        three.close()
