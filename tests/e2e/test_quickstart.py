"""The commands of docs/quickstart.md, run in their order as they stand there: only the ports and the paths of the programs are
those of the test. Between commands a reader pauses; the test waits for what the reader would have waited for."""

import os
import re
import shlex
import subprocess
import sys

import pytest

from cluster import PROJECT, antipode_binary, run, temporal_binary
from eventually import eventually

pytestmark = pytest.mark.antipode

TEXT = (PROJECT / "docs" / "quickstart.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def commands(cluster):
    """The shell commands of the chapters 3 to 5, word by word."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    lines = [line for line in lines if line.startswith(("temporal ", "antipode "))]
    programs = {"temporal": temporal_binary(), "antipode": antipode_binary()}
    ports = {"127.0.0.1:7233": cluster.address("east"), "127.0.0.1:8233": cluster.address("west")}
    for line in lines:
        words = shlex.split(line, comments=True)
        yield [programs.get(words[0], words[0])] + [ports.get(word, word) for word in words[1:]]


@pytest.fixture
def workers(cluster, tmp_path):
    (tmp_path / "worker.py").write_text(blocks("python")[0])
    running = []
    for region in cluster.names:
        words = [sys.executable, str(tmp_path / "worker.py"), cluster.address(region)]
        with open(tmp_path / f"worker-{region}.txt", "wb") as out:
            running.append(subprocess.Popen(words, stdout=out, stderr=out, cwd=tmp_path, env=dict(os.environ)))
    yield running
    for worker in running:
        worker.kill()
        worker.wait()


def test_the_quickstart_does_what_it_says(cluster, workers):
    said = {}
    for words in commands(cluster):
        ran = run(words, env={"TEMPORAL_ADDRESS": cluster.address("east")})
        ran.ok()
        line = " ".join(words[1:])
        said[line] = ran.out
        if "workflow start" in line:
            workflow_id = words[words.index("--workflow-id") + 1]
            eventually("the worker waits", lambda w=workflow_id: "ActivityTaskCompleted" in cluster.east.names(w))
            cluster.same(workflow_id)
        if "link heal" in line:
            eventually("the loser's note is applied", lambda: len(set(cluster.east.signals("split"))) == 2)
            cluster.same("split")
        if "signal" in line and "approve" in line:
            workflow_id = words[words.index("--workflow-id") + 1]
            eventually("it ends", lambda w=workflow_id: cluster.inspect("west", w).status == "COMPLETED")
    assert all(worker.poll() is None for worker in workers), "the workers live"
    inspected = [re.findall(r"^(?:tip|digest) .*", out, re.MULTILINE) for line, out in said.items() if "run inspect" in line]
    assert len(inspected) == 2 and len(inspected[0]) == 2 and inspected[0] == inspected[1], inspected
    branches = next(out for line, out in said.items() if "run branches" in line)
    assert branches.count("lost") == 1 and "current" in branches and "why:" in branches
    result = next(out for line, out in said.items() if "workflow result" in line)
    assert "east was here" in result and "west was here" in result and "approved by grace" in result
    assert cluster.version("east") == 11
