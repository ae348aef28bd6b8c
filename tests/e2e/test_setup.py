"""Point 1: one command starts the regions, says where they listen, refuses what it can't do in one line and without leaving
anything behind, stops cleanly, goes on where it was, and loses nothing it acknowledged when it is killed."""

import hashlib
import json
import re
import shlex
import shutil
import socket
import sqlite3
import threading
import uuid

import grpc
import pytest

import cluster as process
from cluster import NAMES, Cluster, antipode, free_base_port, run
from eventually import eventually
from raw import Node, complete_workflow, schedule_activity
from sdk import Sdk
from workflows import Order

pytestmark = pytest.mark.antipode


def contents(folder):
    """Every file below a folder with a hash of its bytes; none: there is no such folder."""
    if not folder.exists():
        return None
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def refused(*words, **options):
    """Runs `antipode dev`, which must end by itself with one clear line; that line."""
    ran = antipode("dev", *words, timeout=30, **options)
    assert ran.code != 0, ran.out
    lines = [line for line in ran.err.splitlines() if line.strip()]
    assert len(lines) == 1, ran.err
    assert "panicked" not in ran.err
    assert not ran.out.strip(), ran.out
    return lines[0]


# -- the table ---------------------------------------------------------------------------------------------------------


def test_it_prints_where_everything_listens_and_three_commands(shared):
    text = shared.out_file.read_text()
    for region in ("east", "west"):
        row = next(line for line in text.splitlines() if shared.address(region) in line)
        assert region in row
        assert str(shared.port(region) + 90) in row, "the metrics port stands in the row"
    assert len(printed_commands(text)) == 3, text


def printed_commands(text):
    """The lines below "try next:"."""
    lines = text.split("try next:\n", 1)[1].split("\n\n", 1)[0].splitlines()
    return [shlex.split(line) for line in lines]


def test_the_three_printed_commands_work_as_they_stand(cluster):
    commands = printed_commands(cluster.out_file.read_text())
    assert commands[0][0] == "temporal", "one is for the command line that users have"
    for words in commands:
        program = process.temporal_binary() if words[0] == "temporal" else words[0]
        eventually(f"{words} succeeds", lambda words=words, program=program: run([program, *words[1:]]).code == 0, 20)
    eventually("the third moves the namespace", lambda: cluster.active("east") == "west")


def test_the_printed_commands_name_the_right_ports(shared):
    text = shared.out_file.read_text()
    addresses = set(re.findall(r"127\.0\.0\.1:\d+", text))
    known = {f"127.0.0.1:{shared.port(region) + extra}" for region in shared.names for extra in (0, 90)}
    assert addresses <= known, addresses - known


def test_every_region_answers_health_metrics_and_clients(shared):
    for region in shared.names:
        method = shared.node(region).channel.unary_unary("/grpc.health.v1.Health/Check")
        assert method(b"", timeout=10) == b"\x08\x01", "SERVING"
        assert shared.metrics(region), "there are metrics"
        info = shared.node(region).call("GetSystemInfo")
        assert re.fullmatch(r"1\.\d+\.\d+.*", info.server_version), "Go clients accept >=1.0.0 <2.0.0"


def test_the_namespace_is_global_minted_once_and_active_in_east(shared):
    records = {region: shared.namespace_record(region) for region in shared.names}
    for record in records.values():
        assert record.is_global_namespace
        assert record.failover_version == 1
        assert record.replication_config.active_cluster_name == "east"
        assert [c.cluster_name for c in record.replication_config.clusters] == ["east", "west"]
    assert len({record.namespace_info.id for record in records.values()}) == 1


def test_what_is_not_built_says_its_name(shared):
    code, message = shared.east.refused("CreateSchedule", namespace="default", schedule_id="s")
    assert code == grpc.StatusCode.UNIMPLEMENTED
    assert "CreateSchedule" in message


def rows_of_the_compatibility_table():
    text = (process.PROJECT / "docs" / "compatibility.md").read_text()
    return re.findall(r"^\| (\w+) \| (works|partly|UNIMPLEMENTED) \|", text, re.MULTILINE)


def test_the_compatibility_table_is_true(shared):
    """An empty request is refused for what it lacks where the RPC is built, and as UNIMPLEMENTED by name where it is not."""
    rows = rows_of_the_compatibility_table()
    assert len(rows) == 135
    for name, mark in rows:
        try:
            shared.east.call_bytes(name, timeout=10)
            code, message = grpc.StatusCode.OK, ""
        except grpc.RpcError as error:
            code, message = error.code(), error.details()
        if mark == "UNIMPLEMENTED":
            assert code == grpc.StatusCode.UNIMPLEMENTED and name in message, (name, mark, code, message)
        else:
            assert code != grpc.StatusCode.UNIMPLEMENTED, (name, mark, message)


def test_our_command_line_finds_its_node_by_option_or_environment(shared):
    by_option = antipode("namespace", "list", "--address", shared.address("west"))
    by_environment = antipode("namespace", "list", env={"TEMPORAL_ADDRESS": shared.address("west")})
    assert "default" in by_option.ok()
    assert by_environment.ok() == by_option.out
    nobody = antipode("namespace", "list", "--address", f"127.0.0.1:{free_base_port(1)}").failed()
    assert len(nobody.strip().splitlines()) == 1


# -- options -----------------------------------------------------------------------------------------------------------


def test_five_regions_with_documented_names_ports_and_versions(tmp_path):
    five = Cluster(tmp_path, regions=5, in_memory=True)
    try:
        five.start()
        for place, region in enumerate(NAMES):
            assert five.port(region) == five.base + 1000 * place
            cluster = five.node(region).call("GetClusterInfo")
            assert (cluster.cluster_name, cluster.initial_failover_version) == (region, place + 1)
            assert cluster.failover_version_increment == 10
            record = five.namespace_record(region)
            assert [c.cluster_name for c in record.replication_config.clusters] == NAMES
        assert five.temporal("operator", "cluster", "list", at="central").ok().count("127.0.0.1") == 5
        assert five.stop() == 0
    finally:
        five.close()
    assert not five.data.exists(), "in memory means no files"


def test_one_region_alone_serves_a_worker(tmp_path, name, effects):
    alone = Cluster(tmp_path, regions=1, namespace="orders")
    try:
        alone.start()
        with Sdk(alone.address("east"), "orders") as sdk:
            sdk.work(name).start(Order.run, "ada", name, name)
            sdk.signal(name, Order.approve, "early")
            assert sdk.result(name).endswith("approved by early")
        code, _ = Node(alone.address("east"), "default").refused("DescribeNamespace", namespace="default")
        assert code == grpc.StatusCode.NOT_FOUND, "only the namespace that was asked for"
    finally:
        alone.close()


def test_in_memory_writes_nothing(tmp_path):
    folder = tmp_path / "memory"
    memory = Cluster(folder, in_memory=True)
    try:
        memory.start()
        memory.east.start("w", "q")
        eventually("west has it", lambda: memory.west.has_run("w"))
        assert memory.stop() == 0
    finally:
        memory.close()
    assert sorted(contents(folder)) == ["err-1.txt", "out-1.txt"]


def test_without_options_it_is_data_beside_the_caller_and_the_known_ports(tmp_path):
    said = antipode("dev", "--help").ok()
    for option, value in (("--data-dir", "./data"), ("--base-port", "7233"), ("--namespace", "default"), ("--regions", "2")):
        after = said[said.index(option) :]
        assert f"[default: {value}]" in after[: after.index("[default", 1) + 40], option
    here = Cluster(tmp_path)
    here.data = None  # no --data-dir
    try:
        here.start()
        assert here.stop() == 0
    finally:
        here.close()
    assert len(databases(tmp_path / "data")) == 2


def test_logs_are_filtered_and_can_be_json(tmp_path):
    quiet = Cluster(tmp_path / "quiet", in_memory=True, options=["--log", "error"])
    json_lines = Cluster(tmp_path / "json", in_memory=True, options=["--log", "info", "--log-format", "json"])
    for cluster in (quiet, json_lines):
        try:
            cluster.start()
            assert cluster.stop() == 0
        finally:
            cluster.close()
    assert quiet.err_file.read_text() == ""
    lines = json_lines.err_file.read_text().splitlines()
    assert lines and all(isinstance(json.loads(line), dict) for line in lines)


@pytest.mark.parametrize(
    "words, named",
    [
        (["--regions", "0"], "--regions"),
        (["--regions", "6"], "--regions"),
        (["--regions", "two"], "--regions"),
        (["--base-port", "65000"], "port"),
        (["--base-port", "0"], "port"),
        (["--namespace", ""], "namespace"),
        (["--log", "antipode=loud"], "--log"),
        (["--regoins", "2"], "--regoins"),
    ],
)
def test_a_bad_option_is_one_line_and_leaves_nothing(tmp_path, words, named):
    data = tmp_path / "data"
    base = [] if "--base-port" in words else ["--base-port", free_base_port(5)]
    assert named in refused(*base, "--data-dir", data, *words, cwd=tmp_path)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("place", [0, 90, 1000, 1090])
def test_a_taken_port_is_one_line_and_leaves_nothing(tmp_path, place):
    base = free_base_port(2)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", base + place))
        taken.listen()
        line = refused("--base-port", base, "--data-dir", tmp_path / "data")
    assert str(base + place) in line
    assert contents(tmp_path) == {}


# -- foreign and damaged folders ---------------------------------------------------------------------------------------


def foreign_file(data):
    (data / "letter.txt").write_text("dear reader")


def foreign_database(data):
    connection = sqlite3.connect(data / "east.db")
    connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.commit()
    connection.close()


def not_a_database(data):
    (data / "east.db").write_bytes(b"this is no database, whatever its name says" * 100)


@pytest.mark.parametrize("make", [foreign_file, foreign_database, not_a_database])
def test_a_foreign_folder_is_refused_and_untouched(tmp_path, make):
    data = tmp_path / "data"
    data.mkdir()
    make(data)
    before = contents(data)
    line = refused("--base-port", free_base_port(2), "--data-dir", data)
    assert str(data) in line
    assert contents(data) == before


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    data = tmp_path / "data"
    data.write_text("a file")
    assert str(data) in refused("--base-port", free_base_port(2), "--data-dir", data)
    assert data.read_text() == "a file"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder that a cluster with one run has written and left cleanly."""
    cluster = Cluster(tmp_path_factory.mktemp("written"))
    try:
        cluster.start()
        cluster.east.start("w", "q")
        eventually("west has it", lambda: cluster.west.has_run("w"))
        assert cluster.stop() == 0
    finally:
        cluster.close()
    return cluster.data


def databases(data):
    return sorted(path for path in data.rglob("*") if path.is_file() and path.read_bytes()[:15] == b"SQLite format 3")


def cut_short(data):
    file = databases(data)[0]
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def overwritten(data):
    file = databases(data)[0]
    text = bytearray(file.read_bytes())
    text[0:64] = b"\xff" * 64
    file.write_bytes(text)


def newer_schema(data):
    connection = sqlite3.connect(databases(data)[0])
    connection.execute("PRAGMA user_version = 9999")
    connection.commit()
    connection.close()


def one_region_missing(data):
    databases(data)[0].unlink()


def regions_swapped(data):
    one, two = databases(data)[:2]
    aside = data / "aside"
    one.rename(aside)
    two.rename(one)
    aside.rename(two)


@pytest.mark.parametrize("damage", [cut_short, overwritten, newer_schema, one_region_missing, regions_swapped])
def test_a_damaged_folder_is_refused_and_untouched(tmp_path, written, damage):
    data = tmp_path / "data"
    shutil.copytree(written, data)
    assert len(databases(data)) == 2, "each region on a file of its own"
    damage(data)
    before = contents(data)
    line = refused("--base-port", free_base_port(2), "--data-dir", data)
    assert str(data) in line
    assert contents(data) == before


def test_the_copy_of_that_folder_is_good_when_it_is_not_damaged(tmp_path, written):
    """The refusals above are due to the damage."""
    shutil.copytree(written, tmp_path / "data")
    again = Cluster(tmp_path)
    try:
        again.start()
        assert again.east.has_run("w") and again.west.has_run("w")
        assert again.stop() == 0
    finally:
        again.close()


def test_a_folder_in_use_is_refused(cluster):
    line = refused("--base-port", free_base_port(2), "--data-dir", cluster.data)
    assert str(cluster.data) in line
    cluster.east.start("still-fine", "q")


# -- stop, start, kill -------------------------------------------------------------------------------------------------


def test_it_stops_cleanly_and_goes_on_where_it_was(cluster, name, effects):
    with Sdk(cluster.address("east")) as sdk:
        sdk.work(name).start(Order.run, "ada", name, name)
        eventually("the workflow waits", lambda: sdk.query(name, Order.where) == "waiting")
        cluster.same(name)
    before = cluster.inspect("east", name)
    records = [cluster.namespace_record(region) for region in cluster.names]

    assert cluster.stop() == 0
    assert not any(process.port_is_free(cluster.port(region)) is False for region in cluster.names)
    cluster.start()

    assert [cluster.namespace_record(region) for region in cluster.names] == records, "minted once"
    for region in cluster.names:
        after = cluster.inspect(region, name)
        assert (after.run_id, after.tip, after.digest) == (before.run_id, before.tip, before.digest)
    with Sdk(cluster.address("east")) as sdk:
        sdk.work(name).signal(name, Order.approve, "grace")
        assert sdk.result(name) == "hello, ada; steady at 3: ada; approved by grace"
    assert len([line for line in effects() if line.startswith("greet")]) == 1
    cluster.same(name)


def test_ctrl_c_ends_open_polls_and_long_polls(cluster, name):
    """A poller that waits does not hold the process up."""
    ended = []

    def poll(region):
        try:
            ended.append(cluster.node(region).poll_workflow(name, timeout=60))
        except grpc.RpcError as error:
            ended.append(error.code())

    threads = [threading.Thread(target=poll, args=(region,)) for region in cluster.names]
    for thread in threads:
        thread.start()

    def parked():
        answer = cluster.east.call("DescribeTaskQueue", namespace="default", task_queue={"name": name}, task_queue_type=1)
        return len(answer.pollers) > 0

    try:
        eventually("the poll is parked", parked, patience=5)
    except (AssertionError, grpc.RpcError):
        pass  # whether pollers are listed is not what this test is about
    assert cluster.stop(patience=20) == 0
    for thread in threads:
        thread.join(20)
    assert len(ended) == 2


class Load:
    """Clients and a worker that hammer a region and remember each acknowledgement."""

    def __init__(self, address, name):
        self.address, self.name = address, name
        self.started, self.signalled, self.completed = {}, [], []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        jobs = [self._starts] * 3 + [self._signals] * 3 + [self._works] * 2
        self.threads = [threading.Thread(target=job, args=(n,), daemon=True) for n, job in enumerate(jobs)]
        for thread in self.threads:
            thread.start()

    def _until_it_dies(self, act):
        node = Node(self.address)
        while not self._stop.is_set():
            try:
                act(node)
            except grpc.RpcError as error:
                dead = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED)
                if error.code() in dead:
                    break
                if error.code() != grpc.StatusCode.NOT_FOUND:
                    raise
        node.close()

    def _starts(self, thread):
        count = 0

        def act(node):
            nonlocal count
            count += 1
            workflow_id = f"{self.name}-{thread}-{count}"
            run_id = node.start(workflow_id, self.name)
            with self._lock:
                self.started[workflow_id] = run_id

        self._until_it_dies(act)

    def _signals(self, thread):
        count = 0

        def act(node):
            nonlocal count
            with self._lock:
                targets = list(self.started)[-20:]
            if not targets:
                return
            count += 1
            value = f'"{thread}-{count}"'
            node.signal(targets[count % len(targets)], "s", value)
            with self._lock:
                self.signalled.append((targets[count % len(targets)], value))

        self._until_it_dies(act)

    def _works(self, _):
        def act(node):
            task = node.poll_workflow(self.name, timeout=3)
            if task is None:
                return
            workflow_id = task.workflow_execution.workflow_id
            finish = int(workflow_id.rsplit("-", 1)[1]) % 5 == 0
            node.complete_workflow_task(task.task_token, [complete_workflow()] if finish else [])
            if finish:
                with self._lock:
                    self.completed.append(workflow_id)

        self._until_it_dies(act)

    def size(self):
        with self._lock:
            return len(self.started) + len(self.signalled)

    def join(self):
        self._stop.set()
        for thread in self.threads:
            thread.join(30)


def test_kill_minus_nine_loses_nothing_that_was_acknowledged(cluster, name):
    total = {"started": {}, "signalled": [], "completed": []}
    for number, enough in enumerate((60, 200, 400)):
        load = Load(cluster.address("east"), f"{name}-{number}")
        eventually("enough load", lambda load=load, enough=enough: load.size() >= enough)
        cluster.kill()
        load.join()
        total["started"].update(load.started)
        total["signalled"] += load.signalled
        total["completed"] += load.completed
        cluster.start()

    assert len(total["started"]) > 50 and len(total["signalled"]) > 50 and total["completed"]
    for region in cluster.names:
        node = cluster.node(region)
        for workflow_id, run_id in total["started"].items():
            eventually(f"{region} has {workflow_id}", lambda w=workflow_id, r=run_id, n=node: n.has_run(w, r), 30)
    for workflow_id in {target for target, _ in total["signalled"]}:
        asked = sorted(value for target, value in total["signalled"] if target == workflow_id)
        run_id = total["started"][workflow_id]

        def all_there(asked=asked, workflow_id=workflow_id, run_id=run_id):
            # A signal that came while a worker held a task waits for that task; the region derives it again.
            written = cluster.east.signals(workflow_id, run_id)
            waiting = cluster.inspect("east", workflow_id).answer.get("pending", []) if len(written) < len(asked) else []
            assert len(set(written)) == len(written), f"doubled: {written}"
            missing = set(asked) - set(written)
            return not missing or len(waiting) >= len(missing)

        eventually(f"the signals of {workflow_id}", all_there, 30)
    for workflow_id in total["completed"]:
        assert cluster.east.names(workflow_id)[-1] == "WorkflowExecutionCompleted"


def test_a_request_that_is_repeated_after_a_kill_is_done_once(cluster, name):
    request = str(uuid.uuid4())
    run_id = cluster.east.start(name, name, request_id=request)
    signal = str(uuid.uuid4())
    cluster.east.signal(name, "s", '"once"', request_id=signal)
    cluster.kill()
    cluster.start()
    assert cluster.east.start(name, name, request_id=request) == run_id
    cluster.east.signal(name, "s", '"once"', request_id=signal)
    assert cluster.east.signals(name) == ['"once"']


def test_work_that_a_worker_held_is_given_again_after_a_kill(cluster, name):
    """An activity whose attempt died with its worker times out; one that waits is offered again at once."""
    cluster.east.start(name, name)
    cluster.east.step(name, schedule_activity("a", name))
    cluster.kill()
    cluster.start()
    task = cluster.east.take_activity(name)
    assert (task.activity_id, task.attempt) == ("a", 1)
    cluster.east.complete_activity(task.task_token)
    cluster.east.step(name, complete_workflow())
    assert cluster.east.names(name)[-1] == "WorkflowExecutionCompleted"
    cluster.same(name)
