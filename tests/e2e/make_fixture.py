"""Writes a small data folder with the binary of today, and what it answers about it, for the tests of later versions:

    python tests/e2e/make_fixture.py tests/fixtures/store-issue-2

The folder holds a closed run, an open one with a retried activity, timers and a signal that waits, a chain of two runs, a
run with two branches after a divergence, and (since issue 3) a run that east quarantined. A fixture is written once and never again: it stands for the folders that users have."""

import json
import shutil
import sqlite3
import sys
import tempfile
from pathlib import Path

from cluster import Cluster
from eventually import eventually
from raw import complete_workflow, continue_as_new, schedule_activity, seconds, start_timer

LONG = {"workflow_task_timeout": seconds(110)}


def write(cluster):
    """Everything that the folder holds; the workflow ids."""
    east, west = cluster.east, cluster.west
    east.start("closed", "closed")
    east.step("closed", schedule_activity("a", "closed"))
    east.complete_activity(east.take_activity("closed").task_token)
    east.step("closed", complete_workflow())

    east.start("chain", "chain")
    east.step("chain", continue_as_new("chain"))

    east.start("open", "open", **LONG)
    # Nothing in the folder comes due for years: what it says must not depend on the day it is opened.
    years = 10 * 365 * 86400
    east.step("open", schedule_activity("retried", "open", interval=years, schedule_to_close=0), start_timer("far", years))
    east.fail_activity(east.take_activity("open").task_token, "first attempt")
    east.signal("open", "s", '"written"')

    east.start("diverged", "diverged", **LONG)
    # A successor's first task comes a second after the start of its predecessor: the folder must be at rest.
    eventually("the successor has its first task", lambda: "WorkflowTaskScheduled" in str(cluster.inspect("east", "chain").branches))
    for workflow_id in ("closed", "chain", "open", "diverged"):
        cluster.same(workflow_id)
    cluster.cut_both()
    east.signal("diverged", "s", '"east"')
    cluster.failover("west", at="west", force=True)
    west.signal("diverged", "s", '"west"')
    west.step("diverged", start_timer("far", years))
    cluster.heal_both()
    eventually("the loser's signal is applied", lambda: len(west.signals("diverged")) == 2)
    eventually("east knows of the move", lambda: cluster.version("east") == cluster.version("west") == 2)
    return ["closed", "chain", "open", "diverged"]


def set_aside(cluster):
    """A run that east quarantined because west sent a batch whose end was missing. The batch is whole again in west's file: a
    replay mends the run."""
    cluster.cut_both()
    run_id = cluster.west.start("aside", "aside", **LONG)
    assert cluster.stop() == 0
    file = cluster.data / "west.db"
    batches = """SELECT batches.id, batches.events FROM batches JOIN runs ON runs.id = batches.run
                 WHERE runs.workflow = 'aside' ORDER BY batches.sequence"""
    whole = edit(file, batches)
    for number, events in whole:
        edit(file, "UPDATE batches SET events = ? WHERE id = ?", events[:-1], number)
    cluster.start()
    east = cluster.data / "east.db"
    eventually("east has set the run aside", lambda: edit(east, "SELECT run FROM quarantine"))
    assert cluster.stop() == 0
    for number, events in whole:
        edit(file, "UPDATE batches SET events = ? WHERE id = ?", events, number)
    assert edit(east, "SELECT workflow, source FROM quarantine") == [("aside", 2)]
    return {"workflow_id": "aside", "run_id": run_id, "region": "east"}


def edit(file, statement, *values):
    """Asks or changes a database file."""
    connection = sqlite3.connect(file)
    try:
        with connection:
            return connection.execute(statement, values).fetchall()
    finally:
        connection.close()


def told(cluster, workflow_id):
    """What both regions say of a workflow id's current run."""
    said = cluster.same(workflow_id)
    return {
        "run_id": said.run_id,
        "status": said.status,
        "digest": said.digest,
        "items": said.items,
        "tree": said.tree,
        "history": cluster.east.history_bytes(workflow_id, said.run_id).hex(),
    }


def main(target):
    folder = Path(tempfile.mkdtemp())
    cluster = Cluster(folder).start()
    try:
        ids = write(cluster)
        expected = {"namespace_version": cluster.version("east"), "runs": {i: told(cluster, i) for i in ids}}
        expected["quarantined"] = set_aside(cluster)
    finally:
        cluster.close()
    for file in cluster.data.rglob("*.db"):
        connection = sqlite3.connect(file)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("VACUUM")
        connection.close()
    shutil.copytree(cluster.data, target / "data", ignore=shutil.ignore_patterns("*-wal", "*-shm"))
    (target / "expected.json").write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
