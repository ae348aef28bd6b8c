"""Point 5: the regions are cut from each other, both go on, and when they are linked again they agree."""

import re

import grpc
import pytest

from eventually import eventually
from raw import complete_workflow, schedule_activity, seconds, start_timer
from sdk import Sdk
from workflows import Ticker

pytestmark = pytest.mark.antipode


def agreed(cluster, active, version):
    for region in cluster.names:
        eventually(
            f"{region} knows {active}@{version}",
            lambda region=region: (cluster.active(region), cluster.version(region)) == (active, version),
        )


# -- cutting -----------------------------------------------------------------------------------------------------------


def test_a_cut_stops_all_traffic_of_its_direction_and_of_no_other(cluster, name):
    """East to west is cut: nothing that east sends arrives. West to east works: what west says arrives, but west's forwarded
    requests get no answer, because an answer is traffic from east to west."""
    known = f"{name}-known"
    cluster.east.start(known, name)
    cluster.same(known)
    cluster.cut("east", "west")
    cluster.east.start(name, name)
    status = cluster.antipode("link", "status", "--output", "json").json()
    assert next(p for p in status["peers"] if p["region"] == "west")["cut_out"] is True
    with pytest.raises(grpc.RpcError) as failed:
        cluster.west.signal(known, "s", timeout=3)
    assert failed.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    assert not cluster.west.has_run(name)
    cluster.heal("east", "west")
    cluster.same(name)


@pytest.mark.parametrize("source, target", [("east", "west"), ("west", "east")])
def test_commands_do_not_pass_a_cut_direction(cluster, name, source, target):
    """One direction is enough to stop a hand-over: it ends at its deadline, is undone, and east goes on as it was."""
    cluster.east.start(name, name)
    cluster.cut(source, target)
    for at in cluster.names:
        said = cluster.failover("west", at=at, deadline="2s", ok=False).failed().strip()
        assert len(said.splitlines()) == 1, said
    assert (cluster.active("east"), cluster.version("east")) == ("east", 1)
    cluster.east.signal(name, "s")
    cluster.heal(source, target)
    assert int(cluster.failover("west")["version"]) == 2
    agreed(cluster, "west", 2)
    cluster.same(name)
    assert cluster.west.signals(name) == ['"x"']


def test_without_force_it_ends_at_its_deadline_with_the_advice(cluster):
    cluster.cut_both()
    ran = cluster.failover("west", at="west", deadline="2s", ok=False)
    said = ran.failed().strip()
    assert "--force" in said and len(said.splitlines()) == 1, said
    for region in cluster.names:
        assert (cluster.active(region), cluster.version(region)) == ("east", 1)
    assert cluster.failover("west", at="west", force=True)["forced"] is True
    assert (cluster.active("west"), cluster.version("west")) == ("west", 2)
    assert (cluster.active("east"), cluster.version("east")) == ("east", 1), "it can't know"
    cluster.heal_both()
    agreed(cluster, "west", 2)


def test_the_namespace_update_forces_when_the_active_region_does_not_answer(cluster):
    """The CLI's own way, as users know it: 2 s for a hand-over, then by force; answer and history say which."""
    cluster.cut_both()
    words = ["operator", "namespace", "update", "-n", "default", "--active-cluster", "west"]
    cluster.temporal(*words, at="west").ok()
    assert cluster.version("west") == 2
    cluster.heal_both()
    agreed(cluster, "west", 2)


# -- the whole story ---------------------------------------------------------------------------------------------------


class Story:
    """A run with progress and signals on both sides of a cut, and tasks of the losing side in a worker's hands."""

    def __init__(self, cluster, name):
        self.cluster, self.name = cluster, name
        east, west = cluster.east, cluster.west
        # The task that is held must not time out: the losing branch would grow while the test looks at it.
        east.start(name, name, workflow_task_timeout=seconds(110))
        east.signal(name, "s", '"before"')
        east.step(name, schedule_activity("common", name), start_timer("far", 3600))
        self.common = east.take_activity(name)
        east.complete_activity(self.common.task_token)
        east.step(name)
        cluster.same(name)
        cluster.cut_both()
        self.before = cluster.inspect("east", name)

        # East goes on: a signal, an activity of its own, a second signal, a task that waits.
        east.signal(name, "s", '"east 1"')
        east.step(name, schedule_activity("of east", name, start_to_close=300))
        east.signal(name, "s", '"east 2"')
        self.activity_task = east.take_activity(name)
        assert self.activity_task.activity_id == "of east"
        self.workflow_task = east.take_workflow(name)

        # West is made active and goes on too.
        assert cluster.failover("west", at="west", force=True)["forced"] is True
        west.signal(name, "s", '"west 1"')
        west.step(name, schedule_activity("of west", name))
        task = west.take_activity(name)
        assert task.activity_id == "of west"
        west.complete_activity(task.task_token)
        west.signal(name, "s", '"west 2"')
        self.losing, self.winning = cluster.inspect("east", name), cluster.inspect("west", name)
        assert self.losing.items[-1][1] == 1 and self.winning.items[-1][1] == 2
        assert cluster.discarded("east") == {} and cluster.discarded("west") == {}

    def agreed(self, version=2):
        """Both regions hold one tree with both branches; the branch with the highest version is current; every signal
        stands exactly once in it."""
        cluster, name = self.cluster, self.name

        def all_signals():
            seen = cluster.node(cluster.active("east")).signals(name)
            assert len(set(seen)) == len(seen), f"doubled: {seen}"
            return set(seen) == {'"before"', '"west 1"', '"west 2"', '"east 1"', '"east 2"'}

        self.let_pass(all_signals)
        said = cluster.same(name)
        assert said.items[-1][1] == version, said.items
        chains = {branch["chain"] for branch in said.branches}
        assert len(said.branches) == 2, said.branches
        assert self.losing.current["chain"] in chains, "the losing branch is kept, whole"
        others = [b for b in said.branches if b is not said.current]
        assert [said.items_of(b) for b in others] == [self.losing.items]
        assert others[0]["fork"] == {"event_id": self.before.items[-1][0], "version": 1}
        assert all_signals()
        return said

    def let_pass(self, condition):
        """Plays the worker of the active region until the condition holds: signals of the loser may wait for a task."""

        def tried():
            node = self.cluster.node(self.cluster.active("east"))
            if condition():
                return True
            task = node.poll_workflow(self.name, timeout=3)
            if task:
                node.complete_workflow_task(task.task_token)
            return condition()

        eventually("every signal stands in the winner", tried)

    def discard(self, at="east"):
        """Completes both tasks of the losing branch. Each gets NotFound."""
        node = self.cluster.node(at)
        for what, token in (("WorkflowTask", self.workflow_task), ("ActivityTask", self.activity_task)):
            code, message = node.refused(
                f"Respond{what}Completed", namespace="default", task_token=token.task_token, identity="e2e"
            )
            assert code == grpc.StatusCode.NOT_FOUND, (what, code, message)

    def counted(self):
        """All discards of both regions by (kind, reason)."""
        found = {}
        for region in self.cluster.names:
            for key, value in self.cluster.discarded(region).items():
                found[key] = found.get(key, 0) + value
        return found

    def finish(self):
        """The winner goes on to its end, with its own activity's result and without the loser's."""
        node = self.cluster.node(self.cluster.active("east"))
        names = node.names(self.name)
        assert names.count("ActivityTaskCompleted") == 2, names
        node.signal(self.name, "s", '"end"')
        node.step(self.name, complete_workflow())
        assert self.cluster.same(self.name).status == "COMPLETED"


@pytest.mark.parametrize("at", ["east", "west"])
def test_two_branches_become_one_tree_with_one_winner(cluster, name, at):
    story = Story(cluster, name)
    cluster.heal_both()
    agreed(cluster, "west", 2)
    story.agreed()
    before = story.counted()
    story.discard(at)
    after = story.counted()
    rises = {key: after[key] - before.get(key, 0) for key in after if after[key] != before.get(key, 0)}
    assert sorted(kind for kind, _ in rises) == ["activity", "workflow"], rises
    assert set(rises.values()) == {1}, rises
    assert all(reason for _, reason in rises)
    story.finish()


def test_the_tree_is_printed_with_the_winner_and_why(cluster, name):
    story = Story(cluster, name)
    cluster.heal_both()
    said = story.agreed()
    texts = {region: cluster.antipode("run", "branches", name, at=region).ok() for region in cluster.names}
    assert texts["east"] == texts["west"], "the same tree everywhere"
    text = texts["west"]
    for event in ("WorkflowExecutionSignaled", "ActivityTaskScheduled"):
        assert event in text
    assert re.search(r"\b2\b", text) and "version" in text, text
    assert said.why and said.why in " ".join(text.split())
    assert f"{story.before.items[-1][0]}" in text, "the last common event stands there"


def test_after_a_restart_of_both_regions_before_the_heal(cluster, name):
    story = Story(cluster, name)
    cluster.restart()
    cut = cluster.antipode("link", "status", "--output", "json").json()["peers"][0]["cut_out"]
    if cut:  # whether a cut outlives the process is the operator's affair; the result is the same
        cluster.heal_both()
    agreed(cluster, "west", 2)
    story.agreed()
    story.discard()
    story.finish()


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_after_a_restart_of_both_regions_after_the_heal(cluster, name, how):
    story = Story(cluster, name)
    cluster.heal_both()
    if how == "kill":
        cluster.kill()
    else:
        assert cluster.stop() == 0
    cluster.start()
    agreed(cluster, "west", 2)
    said = story.agreed()
    cluster.restart()
    again = cluster.same(name)
    assert (again.tip, again.digest, again.tree) == (said.tip, said.digest, said.tree)
    story.discard()
    story.finish()


def test_after_redelivery_of_everything(cluster, name):
    """Both receivers forget how far they were, so that all entries come again: nothing changes."""
    story = Story(cluster, name)
    cluster.heal_both()
    said = story.agreed()
    signals = cluster.west.signals(name)
    assert cluster.stop() == 0
    cluster.forget_positions()
    cluster.start()
    marker = f"{name}-marker"
    cluster.west.start(marker, name)
    cluster.same(marker)  # it comes after everything that is sent again
    again = cluster.same(name)
    assert (again.tip, again.digest, again.tree) == (said.tip, said.digest, said.tree)
    assert cluster.west.signals(name) == signals == cluster.east.signals(name)
    story.discard()
    story.finish()


@pytest.mark.parametrize("first", ["east", "west"])
def test_heal_then_failback_with_either_direction_first(cluster, name, first):
    story = Story(cluster, name)
    cluster.heal_both(first=first)
    agreed(cluster, "west", 2)
    story.agreed()
    assert int(cluster.failover("east")["version"]) == 11
    agreed(cluster, "east", 11)
    cluster.east.signal(name, "s", '"after"')
    assert cluster.east.signals(name).count('"after"') == 1
    cluster.same(name)
    story.discard()
    story.finish()


def test_failback_by_force_before_the_heal(cluster, name):
    """East is made active again while it is still cut off: its branch has the higher version now, and west's loses."""
    story = Story(cluster, name)
    # East has only seen 1; forced to itself it must mint above all that it can see.
    answer = cluster.failover("east", at="east", force=True)
    assert int(answer["version"]) == 11
    cluster.east.signal(name, "s", '"east 3"')
    cluster.heal_both()
    agreed(cluster, "east", 11)

    def everything():
        seen = cluster.east.signals(name)
        assert len(set(seen)) == len(seen), f"doubled: {seen}"
        return set(seen) == {'"before"', '"west 1"', '"west 2"', '"east 1"', '"east 2"', '"east 3"'}

    story.let_pass(everything)
    said = cluster.same(name)
    assert said.items[-1][1] == 11
    assert story.winning.current["chain"] in {branch["chain"] for branch in said.branches}, "west's branch is kept"
    assert everything()


def test_an_sdk_worker_lives_through_it(cluster, name, effects):
    """Workers of both regions run all the time; the workflow ends with every word that was ever acknowledged."""
    rounds = 10
    with Sdk(cluster.address("east")) as east, Sdk(cluster.address("west")) as west:
        east.work(name)
        west.work(name)
        east.start(Ticker.run, rounds, name, name)
        east.signal(name, Ticker.hear, "before")
        eventually("it is under way", lambda: east.query(name, Ticker.rounds) >= 2)
        cluster.cut_both()
        east.signal(name, Ticker.hear, "in east")
        cluster.failover("west", at="west", force=True)
        west.signal(name, Ticker.hear, "in west")
        here, there = east.query(name, Ticker.rounds), west.query(name, Ticker.rounds)
        eventually("east goes on", lambda: east.query(name, Ticker.rounds) > here)
        eventually("west goes on", lambda: west.query(name, Ticker.rounds) > there)
        cluster.heal_both()
        assert sorted(west.result(name)) == ["before", "in east", "in west"]
    said = cluster.same(name)
    assert said.status == "COMPLETED" and said.items[-1][1] == 2
    assert {line.split()[0] for line in effects()} == {f"tick-{n}" for n in range(rounds)}
