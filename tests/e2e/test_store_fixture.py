"""A data folder that an earlier version wrote opens, says what it said then, and goes on."""

import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from cluster import Cluster
from eventually import eventually
from raw import complete_workflow

pytestmark = pytest.mark.antipode

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"


def quarantined(data, region):
    """Workflows with a quarantined run in a region's file."""
    connection = sqlite3.connect(data / f"{region}.db")
    try:
        return [workflow for (workflow,) in connection.execute("SELECT workflow FROM quarantine")]
    finally:
        connection.close()


def replayed(cluster, region, workflow_id, run_id):
    """A run that the earlier version had quarantined is mended from its source."""
    eventually("the quarantined run is mended", lambda: not quarantined(cluster.data, region))
    assert cluster.same(workflow_id).run_id == run_id


@pytest.mark.parametrize("fixture", sorted(p.name for p in FIXTURES.iterdir() if p.is_dir()))
def test_an_earlier_folder_opens_and_goes_on(tmp_path, fixture):
    shutil.copytree(FIXTURES / fixture / "data", tmp_path / "data")
    expected = json.loads((FIXTURES / fixture / "expected.json").read_text())
    if aside := expected.get("quarantined"):
        assert quarantined(tmp_path / "data", aside["region"]) == [aside["workflow_id"]]
    cluster = Cluster(tmp_path)
    try:
        cluster.start()
        for region in cluster.names:
            assert cluster.version(region) == expected["namespace_version"]
            for workflow_id, run in expected["runs"].items():
                said = cluster.inspect(region, workflow_id)
                assert (said.run_id, said.status, said.digest) == (run["run_id"], run["status"], run["digest"])
                assert json.loads(json.dumps(said.tree)) == run["tree"]
                answer = cluster.node(region).history_bytes(workflow_id, said.run_id)
                assert answer.hex() == run["history"], workflow_id
        if aside := expected.get("quarantined"):
            replayed(cluster, **aside)
        active = cluster.node(cluster.active("east"))
        active.step("open", complete_workflow())
        assert cluster.same("open").status == "COMPLETED"
        active.start("new", "new")
        eventually("the other region follows", lambda: all(cluster.node(r).has_run("new") for r in cluster.names))
        assert cluster.stop() == 0
    finally:
        cluster.close()
