"""Point 3: the passive region follows while the worker works, byte for byte, and executes nothing."""

import concurrent.futures
import sqlite3

import pytest

from eventually import eventually
from raw import Listener, complete_workflow, schedule_activity, start_timer
from sdk import Sdk
from workflows import Order, Ticker

pytestmark = pytest.mark.antipode

WANTED_TIPS = 24


def compare_now(cluster, workflow_id):
    """Compares both regions at one moment. The tip where they were found equal; none: one is ahead of the other, which is
    allowed. East is asked before and after west, so that what is compared in east did not move meanwhile."""
    with concurrent.futures.ThreadPoolExecutor(2) as both:
        east, west = both.map(lambda region: cluster.inspect(region, workflow_id), ("east", "west"))
    if east.items != west.items:
        return None
    again = cluster.inspect("east", workflow_id)
    if (again.tip, again.digest) != (east.tip, east.digest):
        return None
    assert east.tip == west.tip, "the same events have the same chain value"
    assert east.tree == west.tree
    if east.digest != west.digest:
        # A register changed without an event (an attempt that failed, a signal that waits): it has to arrive too.
        def caught_up():
            now = cluster.inspect("east", workflow_id)
            return now.digest != east.digest or cluster.inspect("west", workflow_id).digest == east.digest

        eventually(f"the registers at {east.tip} arrive", caught_up)
        return None
    answers = [cluster.node(region).history_bytes(workflow_id, east.run_id) for region in ("east", "west")]
    after = [cluster.node(region).history(workflow_id, east.run_id)[-1].event_id for region in ("east", "west")]
    if after == [east.tip[0], east.tip[0]]:
        assert answers[0] == answers[1], f"histories differ at {east.tip}"
        return east.tip
    return None


def test_histories_and_state_are_equal_at_many_tips_while_the_worker_works(cluster, name, effects):
    witness = Listener(cluster.address("west"), name)
    with Sdk(cluster.address("east")) as sdk:
        sdk.work(name).start(Ticker.run, 500, name, name)
        eventually("west has the run", lambda: cluster.west.has_run(name))
        tips, said = set(), 0

        def one_more():
            # The workflow goes on until it is told to stop, so every tip is met while it works.
            nonlocal said
            tip = compare_now(cluster, name)
            if tip:
                tips.add(tip)
            if len(tips) // 5 > said:
                said += 1
                sdk.signal(name, Ticker.hear, f"word {said}")
            return len(tips) >= WANTED_TIPS

        eventually(f"{WANTED_TIPS} equal tips are met while it works", one_more, 180)
        rounds = sdk.query(name, Ticker.rounds)
        assert cluster.inspect("west", name).status == "RUNNING"
        sdk.signal(name, Ticker.stop)
        assert sdk.result(name) == [f"word {n}" for n in range(1, said + 1)]
    witness.stop()
    cluster.same(name)

    assert witness.got == [], "west gives no task away"
    assert witness.polls_ended > 0, "it was asked"
    ran = len(effects())
    assert ran >= rounds > 0
    assert sorted(effects()) == sorted(f"tick-{n} {name} attempt=1" for n in range(ran)), "each activity ran once"
    assert set(cluster.west.versions(name)) == {1}, "all events were written in east"
    assert len(cluster.inspect("west", name).branches) == 1


def test_several_runs_appear_in_west_and_in_its_lists(cluster, name, effects):
    with Sdk(cluster.address("east")) as sdk:
        sdk.work(name)
        ids = [f"{name}-{n}" for n in range(5)]
        for workflow_id in ids:
            sdk.start(Order.run, workflow_id, workflow_id, name)
        for workflow_id in ids:
            sdk.signal(workflow_id, Order.approve, "all")
        for workflow_id in ids:
            sdk.result(workflow_id)
    for workflow_id in ids:
        cluster.same(workflow_id)

    def listed(region):
        words = ["workflow", "list", "--query", f'TaskQueue = "{name}"', "-o", "json"]
        rows = cluster.temporal(*words, at=region).json() or []
        return sorted((w["execution"]["workflowId"], w["execution"]["runId"], w["status"], w["closeTime"]) for w in rows)

    eventually("the lists are equal", lambda: len(listed("west")) == 5 and listed("east") == listed("west"))
    assert len([line for line in effects() if line.startswith("greet")]) == 5


def test_registers_without_events_arrive(cluster, name):
    """An activity attempt that failed has no event: the pending activity is equal in both regions all the same."""
    cluster.east.start(name, name)
    cluster.east.step(name, schedule_activity("a", name, interval=300))
    task = cluster.east.take_activity(name)
    cluster.east.fail_activity(task.task_token, "first attempt")

    def pending(region):
        return [
            (a.activity_id, a.attempt, a.last_failure.message, a.state)
            for a in cluster.node(region).describe(name).pending_activities
        ]

    eventually("east counts it", lambda: [(p[0], p[1], p[2]) for p in pending("east")] == [("a", 2, "first attempt")])
    eventually("west counts it", lambda: pending("west") == pending("east"))
    cluster.same(name)


def test_no_timer_fires_in_west(cluster, name):
    """With the link cut the timer comes due in west's copy too. It fires in east, and nothing happens in west."""
    witness = Listener(cluster.address("west"), name)
    cluster.east.start(name, name)
    cluster.east.step(name, start_timer("t", 1.0), start_timer("much later", 3600))
    cluster.same(name)
    before = cluster.inspect("west", name)
    cluster.cut_both()
    eventually("it fires in east", lambda: "TimerFired" in cluster.east.names(name))
    later = f"{name}-later"
    cluster.east.start(later, name)
    cluster.east.step(name)  # one of the two open tasks: east goes on
    after = cluster.inspect("west", name)
    assert (after.tip, after.digest) == (before.tip, before.digest), "west waits for east's word"
    assert not cluster.west.has_run(later)
    cluster.heal_both()
    cluster.same(name)
    cluster.same(later)
    witness.stop()
    assert witness.got == []


def test_an_ack_is_a_proof(cluster, name):
    """What west has not proved is counted as lag; when all is proved the two positions are equal."""

    def peer():
        status = cluster.antipode("link", "status", "--output", "json", at="east").json()
        return next(peer for peer in status["peers"] if peer["region"] == "west")

    cluster.east.start(f"{name}-1", name)
    eventually("everything is proved", lambda: int(peer().get("lag_entries", 0)) == 0)
    cluster.cut("east", "west")
    for n in range(2, 7):
        cluster.east.start(f"{name}-{n}", name)
    eventually("what is not proved is counted", lambda: int(peer()["lag_entries"]) >= 5)
    assert peer()["cut_out"] is True
    assert not cluster.west.has_run(f"{name}-2")
    cluster.heal("east", "west")
    eventually("the rest is proved", lambda: int(peer().get("lag_entries", 0)) == 0)
    shards = peer()["shards"]
    assert shards and all(s["committed"] == s["proof_by_peer"] for s in shards)
    for n in range(1, 7):
        cluster.same(f"{name}-{n}")

    assert cluster.stop() == 0
    sent, taken = (sqlite3.connect(cluster.data / f"{region}.db") for region in ("east", "west"))
    committed = dict(sent.execute("SELECT shard, sequence FROM shards"))
    proved = dict(taken.execute("SELECT shard, sequence FROM positions WHERE source = 1"))
    assert {shard: proved.get(shard) for shard in committed if committed[shard]} == {
        shard: sequence for shard, sequence in committed.items() if sequence
    }, "the receiver owns its position, beside the data"
    batches = "SELECT hex(events) FROM batches ORDER BY hex(events)"
    assert sent.execute(batches).fetchall() == taken.execute(batches).fetchall(), "history is stored as received"


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_replication_goes_on_after_a_restart_with_the_link_cut_before(cluster, name, how):
    cluster.cut("east", "west")
    cluster.east.start(name, name)
    cluster.east.step(name, start_timer("t", 3600))
    assert not cluster.west.has_run(name)
    if how == "stop":
        assert cluster.stop() == 0
    else:
        cluster.kill()
    cluster.start()
    cluster.heal("east", "west")
    cluster.same(name)
    cluster.east.signal(name, "s")
    cluster.east.step(name, complete_workflow())
    assert cluster.same(name).status == "COMPLETED"
