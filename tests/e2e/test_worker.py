"""Point 2: an unmodified SDK worker and client, and the real `temporal` command line, against one region."""

import json

import pytest
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError
from temporalio.exceptions import CancelledError

from cluster import free_base_port
from eventually import eventually
from sdk import Sdk
from workflows import Order, Patient


@pytest.fixture
def worker(shared, name, effects):
    """A worker on a queue of the test's own."""
    with Sdk(shared.address("east")) as sdk:
        yield sdk.work(name)


def ran(effects, what):
    return [line for line in effects() if line.startswith(what)]


def test_a_real_worker_runs_the_whole_workflow(shared, worker, name, effects):
    worker.start(Order.run, "ada", name, name)
    eventually("the workflow waits for its signal", lambda: worker.query(name, Order.where) == "waiting")
    worker.signal(name, Order.approve, "grace")
    assert worker.result(name) == "hello, ada; steady at 3: ada; approved by grace"
    assert len(ran(effects, "greet")) == 1
    assert [line.split("attempt=")[1] for line in ran(effects, "unsteady")] == ["1", "2", "3"]

    described = worker.do(worker.handle(name).describe())
    assert described.status == WorkflowExecutionStatus.COMPLETED
    events = shared.east.history(name)
    names = shared.east.names(name)
    assert names[0] == "WorkflowExecutionStarted" and names[-1] == "WorkflowExecutionCompleted"
    for one in ("TimerStarted", "TimerFired", "WorkflowExecutionSignaled"):
        assert names.count(one) == 1, names
    assert [event.event_id for event in events] == list(range(1, len(events) + 1))
    attempts = [
        event.activity_task_started_event_attributes.attempt
        for event in events
        if event.HasField("activity_task_started_event_attributes")
    ]
    assert attempts == [1, 3]
    assert worker.query(name, Order.where) == "approved", "a closed run answers queries"


def test_a_worker_that_comes_late_and_one_without_cache_replay(shared, name, effects):
    """The first worker leaves in the middle; the second has to replay from the first event."""
    with Sdk(shared.address("east")) as first:
        first.work(name).start(Order.run, "ada", name, name)
        eventually("it waits", lambda: first.query(name, Order.where) == "waiting")
    with Sdk(shared.address("east")) as second:
        second.signal(name, Order.approve, "nobody works yet")
        second.work(name)
        assert second.result(name).endswith("approved by nobody works yet")
    assert len(ran(effects, "greet")) == 1, "replay runs no activity again"


def test_a_workflow_is_cancelled(shared, worker, name):
    worker.do(worker.client.start_workflow(Patient.run, id=name, task_queue=name))
    eventually("it runs", lambda: "WorkflowTaskCompleted" in shared.east.names(name))
    worker.do(worker.handle(name).cancel())
    with pytest.raises(WorkflowFailureError) as failed:
        worker.result(name)
    assert isinstance(failed.value.cause, CancelledError)
    assert shared.east.names(name)[-1] == "WorkflowExecutionCanceled"


def test_the_command_line_runs_a_workflow(shared, worker, name):
    started = shared.temporal(
        "workflow", "start", "--type", "Order", "--task-queue", name, "-w", name, "--input", '"ada"', "-o", "json"
    ).json()
    assert started["workflowId"] == name

    again = shared.temporal("workflow", "start", "--type", "Order", "--task-queue", name, "-w", name, "--fail-existing")
    assert "already" in again.failed()

    def queried():
        asked = shared.temporal("workflow", "query", "-w", name, "--type", "where")
        return asked.code == 0 and "waiting" in asked.out

    eventually("the query says waiting", queried)
    listed = shared.temporal("workflow", "list", "--query", f'WorkflowId = "{name}"', "-o", "json").json()
    assert [(w["execution"]["workflowId"], w["type"]["name"], w["status"]) for w in listed] == [
        (name, "Order", "WORKFLOW_EXECUTION_STATUS_RUNNING")
    ]
    described = shared.temporal("workflow", "describe", "-w", name, "-o", "json").json()
    assert described["workflowExecutionInfo"]["execution"]["runId"] == started["runId"]
    assert described["executionConfig"]["taskQueue"]["name"] == name

    shared.temporal("workflow", "signal", "-w", name, "--name", "approve", "--input", '"cli"').ok()
    result = shared.temporal("workflow", "result", "-w", name)
    assert "approved by cli" in result.ok()
    shown = shared.temporal("workflow", "show", "-w", name).ok()
    for event in ("WorkflowExecutionStarted", "ActivityTaskCompleted", "TimerFired", "WorkflowExecutionCompleted"):
        assert event in shown
    events = shared.temporal("workflow", "show", "-w", name, "-o", "json").json()["events"]
    assert events[-1]["eventType"] == "EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED"


def test_the_command_line_lists_by_status(shared, worker, name):
    worker.do(worker.client.start_workflow(Patient.run, id=f"{name}-open", task_queue=name))
    shared.east.terminate(f"{name}-open", reason="first")
    worker.do(worker.client.start_workflow(Patient.run, id=f"{name}-open2", task_queue=name))

    def ids(status):
        query = f'TaskQueue = "{name}" AND ExecutionStatus = "{status}"'
        listed = shared.temporal("workflow", "list", "--query", query, "-o", "json").json()
        return [w["execution"]["workflowId"] for w in listed or []]

    eventually("the terminated one is listed", lambda: ids("Terminated") == [f"{name}-open"])
    assert ids("Running") == [f"{name}-open2"]
    counted = shared.temporal("workflow", "count", "--query", f'TaskQueue = "{name}"').ok()
    assert "2" in counted


def test_the_command_line_cancels_and_terminates(shared, worker, name):
    for ending, status in (("cancel", "CANCELED"), ("terminate", "TERMINATED")):
        workflow_id = f"{name}-{ending}"
        worker.do(worker.client.start_workflow(Patient.run, id=workflow_id, task_queue=name))
        reason = ["--reason", "the test says so"] if ending == "terminate" else []
        shared.temporal("workflow", ending, "-w", workflow_id, *reason).ok()

        def ended(workflow_id=workflow_id, status=status):
            described = shared.temporal("workflow", "describe", "-w", workflow_id, "-o", "json").json()
            return described["workflowExecutionInfo"]["status"] == f"WORKFLOW_EXECUTION_STATUS_{status}"

        eventually(f"{workflow_id} is {status}", ended)
    last = shared.east.history(f"{name}-terminate")[-1]
    assert last.workflow_execution_terminated_event_attributes.reason == "the test says so"
    closed = shared.temporal("workflow", "signal", "-w", f"{name}-terminate", "--name", "approve")
    assert "already completed" in closed.failed()
    missing = shared.temporal("workflow", "describe", "-w", f"{name}-none")
    assert "not found" in missing.failed()


def test_the_command_line_manages_namespaces(shared, name):
    space = name.replace("_", "-")[:40]
    shared.temporal("operator", "namespace", "create", "-n", space, "--retention", "48h", "--description", "first").ok()
    twice = shared.temporal("operator", "namespace", "create", "-n", space)
    assert "already" in twice.failed()

    def described():
        answer = shared.temporal("operator", "namespace", "describe", "-n", space, "-o", "json")
        return answer.code == 0 and answer.json()

    first = eventually("the namespace is there", described)
    assert first["namespaceInfo"]["description"] == "first"
    assert first["config"]["workflowExecutionRetentionTtl"] == "172800s"
    assert first["namespaceInfo"]["state"] == "NAMESPACE_STATE_REGISTERED"
    listed = json.loads(shared.temporal("operator", "namespace", "list", "-o", "json").ok())
    assert {"default", space} <= {entry["namespaceInfo"]["name"] for entry in listed}
    shared.temporal("operator", "namespace", "update", "-n", space, "--description", "second", "--retention", "72h").ok()
    second = described()
    assert second["namespaceInfo"]["description"] == "second"
    assert second["config"]["workflowExecutionRetentionTtl"] == "259200s"
    assert second["namespaceInfo"]["id"] == first["namespaceInfo"]["id"]
    assert "not found" in shared.temporal("operator", "namespace", "describe", "-n", f"{space}-none").failed()


@pytest.mark.antipode
def test_a_global_namespace_from_the_temporal_command_line(shared, name):
    """Made in west, active there, known in east."""
    space = name.replace("_", "-")[:40]
    words = ["operator", "namespace", "create", "-n", space, "--global", "--active-cluster", "west"]
    shared.temporal(*words, "--cluster", "east", "--cluster", "west", at="west").ok()

    def seen(region):
        answer = shared.temporal("operator", "namespace", "describe", "-n", space, "-o", "json", at=region)
        return answer.code == 0 and answer.json()

    for region in ("east", "west"):
        record = eventually(f"{region} knows it", lambda region=region: seen(region))
        assert record["isGlobalNamespace"] is True
        assert int(record["failoverVersion"]) == 2
        assert record["replicationConfig"]["activeClusterName"] == "west"
        clusters = {cluster["clusterName"] for cluster in record["replicationConfig"]["clusters"]}
        assert clusters == {"east", "west"}
    assert seen("east")["namespaceInfo"]["id"] == seen("west")["namespaceInfo"]["id"]
    shared.temporal("operator", "namespace", "update", "-n", space, "--description", "told in east", at="east").ok()
    eventually("west hears it", lambda: seen("west")["namespaceInfo"].get("description") == "told in east")


def test_the_command_line_shows_the_cluster(shared):
    assert "SERVING" in shared.temporal("operator", "cluster", "health").ok()
    described = shared.temporal("operator", "cluster", "describe", "-o", "json").json()
    assert described["clusterName"] and described["persistenceStore"] == "sqlite"
    assert shared.temporal("operator", "cluster", "system").ok()
    listed = shared.temporal("operator", "cluster", "list", "-o", "json").json()
    assert listed[0]["clusterName"] == described["clusterName"]


@pytest.mark.antipode
def test_the_cluster_list_names_all_regions(shared):
    for region in ("east", "west"):
        described = shared.temporal("operator", "cluster", "describe", "-o", "json", at=region).json()
        assert described["clusterName"] == region
        listed = shared.temporal("operator", "cluster", "list", "-o", "json", at=region).json()
        rows = {row["clusterName"]: row for row in listed}
        assert {name: int(row["initialFailoverVersion"]) for name, row in rows.items()} == {"east": 1, "west": 2}
        assert {row["address"] for row in listed} == {shared.address("east"), shared.address("west")}
        assert all(row["isConnectionEnabled"] for row in listed)


@pytest.mark.antipode
def test_peers_are_upserted_and_removed_within_reason(shared):
    """R120, R121: a peer that is known is updated; the region itself, an unreachable address, an unknown name and a region
    that namespaces still need are refused, and the list stays as it was."""

    def rows():
        listed = shared.temporal("operator", "cluster", "list", "-o", "json").json()
        return sorted((row["clusterName"], row["address"], row.get("isConnectionEnabled", False)) for row in listed)

    def upsert(address, *words):
        return shared.temporal("operator", "cluster", "upsert", "--frontend-address", address, *words)

    before = rows()
    upsert(shared.address("west"), "--enable-connection", "--enable-replication").ok()
    assert rows() == before
    upsert(shared.address("east"), "--enable-connection").failed()
    upsert(f"127.0.0.1:{free_base_port(1)}", "--enable-connection").failed()
    assert "nosuch" in shared.temporal("operator", "cluster", "remove", "--name", "nosuch").failed()
    needed = shared.temporal("operator", "cluster", "remove", "--name", "west").failed()
    assert "namespace " in needed and "west" in needed, "the refusal names a namespace that needs it"
    assert rows() == before
    shared.east.start("after-upsert", "q")
    eventually("the link still works", lambda: shared.west.has_run("after-upsert"))


@pytest.mark.antipode
def test_antipode_namespace_does_the_same_for_global_namespaces(shared, name):
    space = name.replace("_", "-")[:40]
    shared.antipode("namespace", "create", space, "--active", "west", "--regions", "east,west", at="east").ok()
    assert shared.antipode("namespace", "create", space).failed().strip().count("\n") == 0

    def seen(region):
        answer = shared.antipode("namespace", "describe", space, "--output", "json", at=region)
        return answer.code == 0 and answer.json()

    east, west = (eventually(f"{region} knows it", lambda region=region: seen(region)) for region in ("east", "west"))
    local = ("active_here", "region")
    assert {k: v for k, v in east.items() if k not in local} == {k: v for k, v in west.items() if k not in local}
    assert (east["active_here"], west["active_here"]) == (False, True)
    assert (west["global"], west["active"], west["failover_version"]) == (True, "west", 2)
    for region in ("east", "west"):
        assert space in shared.antipode("namespace", "list", at=region).ok()
        assert "west" in shared.antipode("namespace", "describe", space, at=region).ok()
    missing = shared.antipode("namespace", "describe", f"{space}-none").failed()
    assert f"{space}-none" in missing and missing.strip().count("\n") == 0
