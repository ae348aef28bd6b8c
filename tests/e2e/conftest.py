"""Fixtures of the suite. With E2E_PEER=1 the tests that need nothing of Antipode's own run against `temporal server
start-dev` instead: that is how they are known to ask for what the API does."""

import os
import subprocess

import pytest

import workflows
from cluster import Cluster, temporal_binary
from eventually import eventually

PEER = os.environ.get("E2E_PEER") == "1"


def pytest_collection_modifyitems(items):
    if PEER:
        for item in items:
            if item.get_closest_marker("antipode"):
                item.add_marker(pytest.mark.skip(reason="needs Antipode"))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Shows the end of the cluster's output beside a failure."""
    outcome = yield
    report = outcome.get_result()
    if report.when == "call" and report.failed:
        for value in item.funcargs.values():
            if isinstance(value, Cluster):
                report.sections.append(("antipode dev", value.log()))


class Peer(Cluster):
    """`temporal server start-dev` in the place of a single region."""

    def words(self):
        return [temporal_binary(), "server", "start-dev", "--headless", "--port", str(self.base), "--log-level", "error"]

    def start(self, patience=60.0):
        self.starts += 1
        with open(self.out_file, "wb") as out, open(self.err_file, "wb") as err:
            self.process = subprocess.Popen(self.words(), stdout=out, stderr=err, stdin=subprocess.DEVNULL)
        eventually("the peer answers", lambda: self.temporal("operator", "cluster", "health").code == 0, patience)
        eventually("its namespace", lambda: self._answers("east"), patience)
        return self

    def close(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Two regions for all tests of a module that don't move the namespace, restart or cut."""
    folder = tmp_path_factory.mktemp("shared")
    cluster = Peer(folder, regions=1) if PEER else Cluster(folder)
    cluster.start()
    yield cluster
    cluster.close()


@pytest.fixture
def cluster(tmp_path):
    """Two fresh regions."""
    cluster = Cluster(tmp_path / "cluster").start()
    yield cluster
    cluster.close()


@pytest.fixture
def effects(tmp_path, monkeypatch):
    """The file in which activities leave their lines; call it for the lines so far."""
    file = tmp_path / "effects.txt"
    file.touch()
    monkeypatch.setenv(workflows.EFFECTS, str(file))
    return lambda: file.read_text().splitlines()


@pytest.fixture
def name(request):
    """A name of the test's own, for workflow ids and task queues."""
    return request.node.name.replace("[", "-").replace("]", "")


