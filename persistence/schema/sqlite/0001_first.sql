-- The first schema. Ids are UUIDs as 16-byte blobs, times are Unix nanoseconds, positions are those of law C1.
-- Tables with blobs are rowid tables: rows are appended and only thin indexes are random. Other tables name a run by
-- runs.id, which grows, so that their entries stand together and not where a random UUID puts them.

-- Who the file belongs to; written once (E2).
CREATE TABLE store (
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    region      TEXT    NOT NULL,
    initial     INTEGER NOT NULL,
    increment   INTEGER NOT NULL,
    shards      INTEGER NOT NULL,
    cluster_id  TEXT    NOT NULL,
    incarnation INTEGER NOT NULL
);

-- The fence of every commit (D3).
CREATE TABLE shards (
    shard    INTEGER PRIMARY KEY,
    range_id INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    owner    TEXT    NOT NULL
);

-- The small row of a run; head is antipode.core.v1.RunHead.
CREATE TABLE runs (
    id         INTEGER PRIMARY KEY,
    shard      INTEGER NOT NULL,
    namespace  BLOB    NOT NULL,
    workflow   TEXT    NOT NULL,
    run        BLOB    NOT NULL,
    changed_at INTEGER NOT NULL,
    wake_at    INTEGER,
    head       BLOB    NOT NULL
);
CREATE UNIQUE INDEX runs_key ON runs (namespace, workflow, run);
CREATE INDEX runs_changed ON runs (shard, changed_at);
CREATE INDEX runs_wake ON runs (shard, namespace, wake_at) WHERE wake_at IS NOT NULL;

-- History, one table read in two orders: by run (of all its branches, in commit order) and by position.
-- first_event and version are for people and for reads of a part; the truth is the envelope.
CREATE TABLE batches (
    id          INTEGER PRIMARY KEY,
    shard       INTEGER NOT NULL,
    sequence    INTEGER NOT NULL,
    run         INTEGER NOT NULL,
    first_event INTEGER NOT NULL,
    version     INTEGER NOT NULL,
    envelope    BLOB    NOT NULL,
    events      BLOB    NOT NULL
);
CREATE UNIQUE INDEX batches_log ON batches (shard, sequence);
CREATE INDEX batches_run ON batches (run);

-- Which run owns a workflow id (B6, B7); record is antipode.core.v1.CurrentRecord.
CREATE TABLE currents (
    namespace BLOB    NOT NULL,
    workflow  TEXT    NOT NULL,
    shard     INTEGER NOT NULL,
    version   INTEGER NOT NULL,
    epoch     INTEGER NOT NULL,
    sequence  INTEGER NOT NULL,
    record    BLOB    NOT NULL,
    PRIMARY KEY (namespace, workflow)
) WITHOUT ROWID;

-- Runs with work for a queue (C2).
CREATE TABLE dispatch (
    run       INTEGER NOT NULL,
    queue     TEXT    NOT NULL,
    kind      INTEGER NOT NULL,
    shard     INTEGER NOT NULL,
    namespace BLOB    NOT NULL,
    ord       INTEGER NOT NULL,
    PRIMARY KEY (run, queue, kind)
) WITHOUT ROWID;
CREATE UNIQUE INDEX dispatch_order ON dispatch (shard, namespace, queue, kind, ord, run);

-- Runs that owe something to others (C3).
CREATE TABLE obligations (
    run   INTEGER PRIMARY KEY,
    shard INTEGER NOT NULL,
    due   INTEGER NOT NULL
);
CREATE INDEX obligations_due ON obligations (shard, due);

-- What lists and counts read (C8); id is runs.id; closes is close, or the end of time while the run is open.
CREATE TABLE visibility (
    id                INTEGER PRIMARY KEY,
    namespace         BLOB    NOT NULL,
    workflow          TEXT    NOT NULL,
    run               BLOB    NOT NULL,
    workflow_type     TEXT    NOT NULL,
    task_queue        TEXT    NOT NULL,
    status            INTEGER NOT NULL,
    start             INTEGER NOT NULL,
    execution         INTEGER NOT NULL,
    close             INTEGER,
    closes            INTEGER NOT NULL,
    history_length    INTEGER NOT NULL,
    history_size      INTEGER NOT NULL,
    transitions       INTEGER NOT NULL,
    superseded        INTEGER NOT NULL,
    first_run         TEXT    NOT NULL,
    memo              BLOB    NOT NULL,
    search_attributes BLOB    NOT NULL
);
CREATE INDEX visibility_order ON visibility (namespace, closes, start, id, status) WHERE superseded = 0;

-- Namespace records (D6); record is antipode.core.v1.NamespaceRecord.
CREATE TABLE namespaces (
    id           BLOB    PRIMARY KEY,
    notification INTEGER NOT NULL,
    record       BLOB    NOT NULL
) WITHOUT ROWID;

CREATE TABLE regions (
    name    TEXT    PRIMARY KEY,
    initial INTEGER NOT NULL,
    address TEXT    NOT NULL,
    enabled INTEGER NOT NULL,
    retired INTEGER NOT NULL
) WITHOUT ROWID;

-- How far each source's log is durably applied here (E2).
CREATE TABLE positions (
    source      INTEGER NOT NULL,
    incarnation INTEGER NOT NULL,
    shard       INTEGER NOT NULL,
    sequence    INTEGER NOT NULL,
    PRIMARY KEY (source, incarnation, shard)
) WITHOUT ROWID;

-- Runs that could not be applied (E1); entry is antipode.link.v1.Entry.
CREATE TABLE quarantine (
    namespace BLOB    NOT NULL,
    workflow  TEXT    NOT NULL,
    run       BLOB    NOT NULL,
    source    INTEGER NOT NULL,
    reason    TEXT    NOT NULL,
    entry     BLOB    NOT NULL,
    since     INTEGER NOT NULL,
    behind    INTEGER NOT NULL,
    PRIMARY KEY (namespace, workflow, run)
);
