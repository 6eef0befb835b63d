-- Schema 1. Frozen: a change to it is a further migration.
--
-- Times are milliseconds since 1970 UTC, spans milliseconds. States, verdicts and conversions are
-- the words of the model. Names and paths are TEXT where they are UTF-8, else BLOB: the raw bytes
-- on Unix, UTF-16LE on Windows. Volume, file number and size are unsigned 64-bit numbers stored by
-- their bits.

-- One row: the ledger itself.
CREATE TABLE ledger (
    one           INTEGER PRIMARY KEY CHECK (one = 1),
    id            BLOB    NOT NULL CHECK (length(id) = 16), -- random; repeated in each mark
    replaces      BLOB,              -- id of the lost ledger that this one stands in for
    created_at    INTEGER NOT NULL,
    reserved_from INTEGER NOT NULL,  -- first file id ever reserved
    reserved_end  INTEGER NOT NULL   -- end of the last reserved block; 0: none yet
) STRICT;

-- One row for each folder that holds a mark of this ledger.
CREATE TABLE root (
    folder    ANY PRIMARY KEY NOT NULL,
    marked_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- One row for each file id: the fold of its steps.
CREATE TABLE file (
    id            INTEGER PRIMARY KEY,
    route         TEXT    NOT NULL,
    name          ANY     NOT NULL,  -- as dropped
    source_folder ANY     NOT NULL,
    source_name   ANY     NOT NULL,
    marker        ANY,
    volume        INTEGER NOT NULL,
    number        INTEGER NOT NULL,
    size          INTEGER NOT NULL,
    mtime_ns      INTEGER NOT NULL,
    digest        BLOB,              -- SHA-256 of the file
    body_digest   BLOB,              -- of what is sent; NULL: nothing is, the file was refused
    body_bytes    INTEGER,
    conversion    TEXT,
    body_remarks  TEXT,              -- JSON list; NULL: none
    key           TEXT    NOT NULL,  -- idempotency key
    previous      INTEGER,
    claimed_at    INTEGER NOT NULL,
    state         TEXT    NOT NULL,
    settled       INTEGER NOT NULL CHECK (settled IN (0, 1)),
    cause_code    TEXT,
    cause_plain   TEXT,              -- never with content of a file or of an answer
    target_folder ANY,
    target_name   ANY,
    decided_at    INTEGER,
    attempt       INTEGER NOT NULL,  -- number of the last; 0: none
    open_since    INTEGER,           -- its beginning, while it has no end
    last_verdict  TEXT,
    unspent_since INTEGER,
    due_at        INTEGER,
    waited_for    INTEGER NOT NULL
) STRICT;

-- What a start goes on from. A file that goes well enters it once and leaves it once.
CREATE INDEX file_unsettled ON file (id) WHERE settled = 0;

-- Files that did not go well: looked up by digest when one like them comes in again.
CREATE INDEX file_troubled ON file (route, digest) WHERE settled = 1 AND state <> 'sent';

-- For `explain NAME`.
CREATE INDEX file_name ON file (name);

-- Files that take another one up again.
CREATE INDEX file_previous ON file (previous) WHERE previous IS NOT NULL;

-- One row for each attempt.
CREATE TABLE attempt (
    file       INTEGER NOT NULL REFERENCES file (id),
    number     INTEGER NOT NULL,
    begun_at   INTEGER NOT NULL,
    ended_at   INTEGER,
    verdict    TEXT,
    code       TEXT,
    status     INTEGER,
    request_id TEXT,
    plain      TEXT,
    PRIMARY KEY (file, number)
) STRICT, WITHOUT ROWID;

-- Whatever else is worth telling about a file.
CREATE TABLE remark (
    file   INTEGER NOT NULL REFERENCES file (id),
    number INTEGER NOT NULL,
    at     INTEGER NOT NULL,
    text   TEXT    NOT NULL,
    PRIMARY KEY (file, number)
) STRICT, WITHOUT ROWID;

-- How many settled files a route has in each state: counting them would read the whole ledger.
CREATE TABLE tally (
    route TEXT    NOT NULL,
    state TEXT    NOT NULL,
    files INTEGER NOT NULL,
    PRIMARY KEY (route, state)
) STRICT, WITHOUT ROWID;

-- What is known about a route.
CREATE TABLE route (
    name           TEXT    PRIMARY KEY NOT NULL,
    first_sweep_at INTEGER,
    released       INTEGER NOT NULL CHECK (released IN (0, 1)),
    paused_at      INTEGER
) STRICT, WITHOUT ROWID;
