-- Entries of two regions can set one run aside at once, each mended from its own source (E1): a row per run and source.
-- Done again by a file that lost its number, it changes nothing.
DROP TABLE IF EXISTS quarantine_by_source;
CREATE TABLE quarantine_by_source (
    namespace BLOB    NOT NULL,
    workflow  TEXT    NOT NULL,
    run       BLOB    NOT NULL,
    source    INTEGER NOT NULL,
    reason    TEXT    NOT NULL,
    entry     BLOB    NOT NULL,
    since     INTEGER NOT NULL,
    behind    INTEGER NOT NULL,
    PRIMARY KEY (namespace, workflow, run, source)
);
INSERT INTO quarantine_by_source (namespace, workflow, run, source, reason, entry, since, behind)
    SELECT namespace, workflow, run, source, reason, entry, since, behind FROM quarantine;
DROP TABLE quarantine;
ALTER TABLE quarantine_by_source RENAME TO quarantine;
