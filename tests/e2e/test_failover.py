"""Point 4: an operator moves the namespace, and every run goes on in the other region where it was."""

import json

import grpc
import pytest

from eventually import eventually
from raw import complete_workflow, event_name, schedule_activity, start_timer
from sdk import Sdk
from workflows import Order, Ticker

pytestmark = pytest.mark.antipode


def agreed(cluster, active, version):
    """Waits until both regions name the active region and the version."""
    for region in cluster.names:
        eventually(
            f"{region} knows {active}@{version}",
            lambda region=region: (cluster.active(region), cluster.version(region)) == (active, version),
        )


def by_temporal(at):
    """The CLI's `operator namespace update --active-cluster`, sent to one region."""

    def move(cluster, to):
        cluster.temporal("operator", "namespace", "update", "-n", cluster.namespace, "--active-cluster", to, at=at).ok()

    return move


def by_antipode(at):
    """`antipode failover`, sent to one region."""
    return lambda cluster, to: cluster.failover(to, at=at)


WAYS = {
    "antipode-at-east": by_antipode("east"),
    "antipode-at-west": by_antipode("west"),
    "temporal-at-east": by_temporal("east"),
    "temporal-at-west": by_temporal("west"),
}
way = pytest.mark.parametrize("move", WAYS.values(), ids=WAYS.keys())


@way
def test_versions_follow_the_documented_arithmetic(cluster, move):
    """EX1: with increment 10, east = 1 and west = 2 the versions run 1, 2, 11, 12, 21; naming the active region keeps it."""
    agreed(cluster, "east", 1)
    for to, version in (("west", 2), ("west", 2), ("east", 11), ("west", 12), ("east", 21), ("east", 21)):
        move(cluster, to)
        agreed(cluster, to, version)


def test_the_answer_tells_what_happened(cluster):
    answer = cluster.failover("west")
    assert (answer["from"], answer["to"]) == ("east", "west")
    assert (int(answer["version_before"]), int(answer["version"])) == (1, 2)
    assert answer["forced"] is False and answer["already_active"] is False
    assert answer["steps"], "what was done, step by step"
    again = cluster.failover("west")
    assert again["already_active"] is True and int(again["version"]) == 2
    assert "west" in cluster.antipode("failover", "default", "--to", "east", at="east").ok()
    history = cluster.namespace_record("west").failover_history
    assert [h.failover_version for h in history][-1] == 11 and len(history) >= 2


@pytest.mark.parametrize(
    "words", [["nosuch", "--to", "west"], ["default", "--to", "south"], ["default", "--to", "west", "--deadline", "-3s"]]
)
def test_an_impossible_failover_is_one_line(cluster, words):
    line = cluster.antipode("failover", *words).failed()
    assert len(line.strip().splitlines()) == 1, line
    agreed(cluster, "east", 1)


@way
def test_a_running_workflow_goes_on_in_west_and_comes_back(cluster, name, effects, move):
    """Workers poll both regions all the time, as users' workers do. The workflow is moved in its middle, twice."""
    rounds = 12
    with Sdk(cluster.address("east")) as east, Sdk(cluster.address("west")) as west:
        east.work(name)
        west.work(name)
        east.start(Ticker.run, rounds, name, name)
        east.signal(name, Ticker.hear, "said in east")
        eventually("it is under way", lambda: east.query(name, Ticker.rounds) >= 3)
        move(cluster, "west")
        agreed(cluster, "west", 2)
        west.signal(name, Ticker.hear, "said in west")
        reached = west.query(name, Ticker.rounds)
        eventually("it goes on in west", lambda: west.query(name, Ticker.rounds) >= reached + 2)
        move(cluster, "east")
        agreed(cluster, "east", 11)
        east.signal(name, Ticker.hear, "back in east")
        assert east.result(name) == ["said in east", "said in west", "back in east"]
    said = cluster.same(name)
    assert said.status == "COMPLETED"
    versions = cluster.east.versions(name)
    assert versions == sorted(versions) and set(versions) == {1, 2, 11}
    ran = [line.split()[0] for line in effects()]
    assert set(ran) == {f"tick-{n}" for n in range(rounds)}
    assert len(ran) <= rounds + 2, f"a graceful move repeats at most what was in flight: {ran}"


def test_a_worker_in_west_finishes_what_was_begun_in_east(cluster, name, effects):
    with Sdk(cluster.address("east")) as east:
        east.work(name).start(Order.run, "ada", name, name)
        eventually("it waits", lambda: east.query(name, Order.where) == "waiting")
        east.signal(name, Order.approve, "east")
    cluster.failover("west")
    with Sdk(cluster.address("west")) as west:
        west.work(name)
        assert west.result(name) == "hello, ada; steady at 3: ada; approved by east"
    assert len([line for line in effects() if line.startswith("greet")]) == 1
    cluster.same(name)


# -- activities --------------------------------------------------------------------------------------------------------


def test_an_activity_that_runs_keeps_its_attempt_and_its_token(cluster, name):
    cluster.east.start(name, name)
    cluster.east.step(name, schedule_activity("a", name))
    first = cluster.east.take_activity(name)
    cluster.east.fail_activity(first.task_token)
    second = cluster.east.take_activity(name)
    assert second.attempt == 2
    cluster.same(name)
    before = cluster.east.describe(name).pending_activities[0]
    cluster.failover("west")

    after = cluster.west.describe(name).pending_activities[0]
    assert (after.attempt, after.state) == (2, before.state)
    assert after.last_started_time == before.last_started_time
    assert cluster.west.poll_activity(name, timeout=3) is None, "it runs already: it is not given to another worker"
    cluster.west.complete_activity(second.task_token, '"begun in east, told in west"')
    task = cluster.west.step(name, complete_workflow())
    done = [e for e in task.history.events if event_name(e) == "ActivityTaskCompleted"]
    assert len(done) == 1 and done[0].version == 2
    started = [e for e in task.history.events if event_name(e) == "ActivityTaskStarted"]
    assert started[0].activity_task_started_event_attributes.attempt == 2
    cluster.same(name)
    code, _ = cluster.west.refused(
        "RespondActivityTaskCompleted", namespace="default", task_token=first.task_token, identity="e2e"
    )
    assert code == grpc.StatusCode.NOT_FOUND, "the token of the first attempt fits nothing any more"


def test_an_activity_that_runs_keeps_its_timeout(cluster, name):
    """Its worker is gone: the attempt that began in east times out in west, and the next one is given to west's worker."""
    cluster.east.start(name, name)
    cluster.east.step(name, schedule_activity("a", name, start_to_close=4))
    assert cluster.east.take_activity(name).attempt == 1
    cluster.same(name)
    cluster.failover("west")
    task = cluster.west.take_activity(name)
    assert task.attempt == 2
    cluster.west.complete_activity(task.task_token)
    cluster.west.step(name, complete_workflow())
    cluster.same(name)


def test_a_start_that_was_not_replicated_is_dispatched_again(cluster, name):
    cluster.east.start(name, name)
    cluster.east.step(name, schedule_activity("a", name))
    cluster.same(name)
    cluster.cut_both()
    lost = cluster.east.take_activity(name)
    assert lost.attempt == 1
    answer = cluster.failover("west", force=True)
    assert answer["forced"] is True
    again = cluster.west.take_activity(name)
    assert (again.activity_id, again.attempt) == ("a", 1)
    cluster.west.complete_activity(again.task_token, '"west"')
    cluster.west.step(name, complete_workflow())
    cluster.heal_both()
    assert cluster.same(name).status == "COMPLETED"
    code, _ = cluster.west.refused(
        "RespondActivityTaskCompleted", namespace="default", task_token=lost.task_token, identity="e2e"
    )
    assert code == grpc.StatusCode.NOT_FOUND


# -- timers and signals ------------------------------------------------------------------------------------------------


def test_a_pending_timer_fires_in_west(cluster, name):
    cluster.east.start(name, name)
    cluster.east.step(name, start_timer("t", 3))
    cluster.same(name)
    assert cluster.failover("west")["version"] in (2, "2")
    fired = eventually(
        "it fires", lambda: [e for e in cluster.west.history(name) if event_name(e) == "TimerFired"]
    )
    assert [e.version for e in fired] == [2]
    cluster.west.step(name, complete_workflow())
    cluster.same(name)


def test_a_timer_that_came_due_while_nobody_was_active_fires(cluster, name):
    """East is cut off; the timer comes due; only then west is made active."""
    cluster.east.start(name, name)
    cluster.east.step(name, start_timer("t", 1))
    cluster.same(name)
    cluster.cut_both()
    eventually("it is due", lambda: "TimerFired" in cluster.east.names(name))
    assert "TimerFired" not in cluster.west.names(name)
    cluster.failover("west", force=True)
    eventually("it fires", lambda: "TimerFired" in cluster.west.names(name))


def test_a_signal_is_still_there(cluster, name):
    """One that is written, and one that waits for a workflow task that a worker holds."""
    cluster.east.start(name, name)
    cluster.east.signal(name, "s", '"written"')
    held = cluster.east.take_workflow(name)
    cluster.east.signal(name, "s", '"waiting"')
    cluster.same(name)
    cluster.failover("west")
    seen = []

    def all_seen():
        task = cluster.west.poll_workflow(name, timeout=5)
        if task:
            cluster.west.complete_workflow_task(task.task_token)
        seen[:] = cluster.west.signals(name)
        return len(seen) >= 2

    eventually("both signals stand in west", all_seen)
    assert sorted(seen) == ['"waiting"', '"written"']
    code, _ = cluster.west.refused(
        "RespondWorkflowTaskCompleted", namespace="default", task_token=held.task_token, identity="e2e"
    )
    assert code == grpc.StatusCode.NOT_FOUND, "the task of east was given up: it had not seen the second signal"
    cluster.same(name)


# -- requests at the passive region ------------------------------------------------------------------------------------


@pytest.mark.parametrize("active", ["east", "west"])
def test_requests_that_reach_the_passive_region_are_forwarded(cluster, name, effects, active):
    passive = "west" if active == "east" else "east"
    if active == "west":
        cluster.failover("west")
        agreed(cluster, "west", 2)
    with Sdk(cluster.address(active)) as worker, Sdk(cluster.address(passive)) as client:
        worker.work(name)
        client.start(Order.run, "ada", name, name)
        assert cluster.node(active).has_run(name), "it was answered, so the active region has it"
        eventually("the query is forwarded", lambda: client.query(name, Order.where) == "waiting")
        client.signal(name, Order.approve, "from far")
        assert client.result(name).endswith("approved by from far")
    assert set(cluster.node(active).versions(name)) == {1 if active == "east" else 2}
    cluster.same(name)


def test_cancel_and_terminate_at_the_passive_region_reach_the_active_one(cluster, name):
    for ending in ("cancel", "terminate"):
        workflow_id = f"{name}-{ending}"
        cluster.east.start(workflow_id, name)
        eventually("west has it", lambda workflow_id=workflow_id: cluster.west.has_run(workflow_id))
        cluster.temporal("workflow", ending, "-w", workflow_id, at="west").ok()
    assert "WorkflowExecutionCancelRequested" in cluster.east.names(f"{name}-cancel")
    assert cluster.east.names(f"{name}-terminate")[-1] == "WorkflowExecutionTerminated"


def test_with_the_link_cut_a_request_at_the_passive_region_fails_and_changes_nothing(cluster, name):
    cluster.east.start(name, name)
    cluster.same(name)
    cluster.cut_both()
    for act in (lambda: cluster.west.signal(name, "s", timeout=5), lambda: cluster.west.start(f"{name}-2", name, timeout=5)):
        with pytest.raises(grpc.RpcError) as failed:
            act()
        assert failed.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    cluster.heal_both()
    cluster.same(name)
    assert cluster.east.signals(name) == [] and not cluster.east.has_run(f"{name}-2")


def test_a_failover_outlives_a_restart(cluster, name):
    cluster.east.start(name, name)
    cluster.failover("west")
    agreed(cluster, "west", 2)
    cluster.kill()
    cluster.start()
    agreed(cluster, "west", 2)
    cluster.west.step(name, complete_workflow())
    assert cluster.same(name).status == "COMPLETED"
    record = json.loads(cluster.antipode("namespace", "describe", "default", "--output", "json", at="east").ok())
    assert record["active_here"] is False
