-- A closed run owes its own deletion (C6). Runs that closed under the schema before get their row here, due at 0: "closed
-- before the upgrade". A shard that meets such a row leaves the run alone for a while, so that nothing is deleted before
-- the operator of an upgraded store could lengthen a namespace's retention.
INSERT OR IGNORE INTO obligations (run, shard, due)
    SELECT runs.id, runs.shard, 0 FROM runs JOIN visibility ON visibility.id = runs.id WHERE visibility.close IS NOT NULL;
