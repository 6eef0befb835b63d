-- A ledger as patchdrop 0.1.0 leaves it. Frozen: later versions must open it.
PRAGMA foreign_keys = off;
PRAGMA journal_mode = wal;
PRAGMA application_id = 1885631087;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
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
INSERT INTO "attempt" VALUES(1000100,1,1000100,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "attempt" VALUES(1000101,1,1000101,1000102,'rejected','http-503',503,'r-1','the server answered 503');
INSERT INTO "attempt" VALUES(1000103,1,1000103,1000300,'route-fault','http-503',503,'r-1','the server answered 503');
INSERT INTO "attempt" VALUES(1000103,2,1000400,1000500,'deferred','http-503',503,'r-1','the server answered 503');
INSERT INTO "attempt" VALUES(1000104,1,1000104,1000105,'rejected','http-503',503,'r-1','the server answered 503');
INSERT INTO "attempt" VALUES(1000105,1,1000105,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "attempt" VALUES(1000106,1,1000106,NULL,NULL,NULL,NULL,NULL,NULL);
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
INSERT INTO "file" VALUES(1000100,'orders','1000100.json','/srv/drop/orders','1000100.json',NULL,-2,1000100,2048,-5,X'0707070707070707070707070707070707070707070707070707070707070707',X'0909090909090909090909090909090909090909090909090909090909090909',2045,'utf-8-bom-dropped','["key \"a\" is there twice","ü"]','key-1000100',NULL,1000100,'sending',0,NULL,NULL,NULL,NULL,NULL,1,1000100,NULL,NULL,NULL,0);
INSERT INTO "file" VALUES(1000101,'orders','1000101.json','/srv/drop/orders','1000101.json',NULL,-2,1000101,2048,-5,X'0707070707070707070707070707070707070707070707070707070707070707',X'0909090909090909090909090909090909090909090909090909090909090909',2045,'utf-8-bom-dropped','["key \"a\" is there twice","ü"]','key-1000101',NULL,1000101,'sent',1,'http-200','plain words about http-200','/srv/drop/orders/sent','1000101.json',1000102,1,NULL,'rejected',NULL,NULL,0);
INSERT INTO "file" VALUES(1000102,'orders','1000102.json','/srv/drop/orders','1000102.json',NULL,-2,1000102,2048,-5,X'0707070707070707070707070707070707070707070707070707070707070707',NULL,NULL,NULL,NULL,'key-1000102',NULL,1000102,'failed',1,'json-syntax','plain words about json-syntax','/srv/drop/orders/failed','1000102.json',1000102,0,NULL,NULL,NULL,NULL,0);
INSERT INTO "file" VALUES(1000103,'orders','1000103.json','/srv/drop/orders','1000103.json',NULL,-2,1000103,2048,-5,X'0707070707070707070707070707070707070707070707070707070707070707',X'0909090909090909090909090909090909090909090909090909090909090909',2045,'utf-8-bom-dropped','["key \"a\" is there twice","ü"]','key-1000103',NULL,1000103,'deferred',0,'http-503','the server answered 503',NULL,NULL,NULL,2,NULL,'deferred',1000300,1001500,1500);
INSERT INTO "file" VALUES(1000104,'orders','1000104.json','/srv/drop/orders','1000104.json',NULL,-2,1000104,2048,-5,X'0707070707070707070707070707070707070707070707070707070707070707',X'0909090909090909090909090909090909090909090909090909090909090909',2045,'utf-8-bom-dropped','["key \"a\" is there twice","ü"]','key-1000104',NULL,1000104,'held',1,'http-200','plain words about http-200','/srv/drop/orders/held','1000104.json',1000105,1,NULL,'rejected',NULL,NULL,0);
INSERT INTO "file" VALUES(1000105,'orders','1000105.json','/srv/drop/orders','1000105.json',NULL,-2,1000105,2048,-5,X'0707070707070707070707070707070707070707070707070707070707070707',X'0909090909090909090909090909090909090909090909090909090909090909',2045,'utf-8-bom-dropped','["key \"a\" is there twice","ü"]','key-1000105',NULL,1000105,'missing',1,'gone','plain words about gone',NULL,NULL,7,1,1000105,NULL,NULL,NULL,0);
INSERT INTO "file" VALUES(1000106,'orders',X'FF2E6A736F6E','/srv/drop/orders','1000106.json','x.done',-2,1000106,2048,-5,X'0707070707070707070707070707070707070707070707070707070707070707',X'0909090909090909090909090909090909090909090909090909090909090909',2045,'utf-8-bom-dropped','["key \"a\" is there twice","ü"]','key-1000106',1000100,1000106,'cancelled',1,'swapped','plain words about swapped',NULL,NULL,8,1,1000106,NULL,NULL,NULL,0);
CREATE TABLE ledger (
    one           INTEGER PRIMARY KEY CHECK (one = 1),
    id            BLOB    NOT NULL CHECK (length(id) = 16), -- random; repeated in each mark
    replaces      BLOB,              -- id of the lost ledger that this one stands in for
    created_at    INTEGER NOT NULL,
    reserved_from INTEGER NOT NULL,  -- first file id ever reserved
    reserved_end  INTEGER NOT NULL   -- end of the last reserved block; 0: none yet
) STRICT;
INSERT INTO "ledger" VALUES(1,X'000102030405060708090A0B0C0D0E0F',NULL,1000000,1000100,1010100);
CREATE TABLE remark (
    file   INTEGER NOT NULL REFERENCES file (id),
    number INTEGER NOT NULL,
    at     INTEGER NOT NULL,
    text   TEXT    NOT NULL,
    PRIMARY KEY (file, number)
) STRICT, WITHOUT ROWID;
INSERT INTO "remark" VALUES(1000103,1,1000600,'looked at');
CREATE TABLE root (
    folder    ANY PRIMARY KEY NOT NULL,
    marked_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "root" VALUES('/srv/drop',1000000);
CREATE TABLE route (
    name           TEXT    PRIMARY KEY NOT NULL,
    first_sweep_at INTEGER,
    released       INTEGER NOT NULL CHECK (released IN (0, 1)),
    paused_at      INTEGER
) STRICT, WITHOUT ROWID;
INSERT INTO "route" VALUES('orders',5,0,9);
CREATE TABLE tally (
    route TEXT    NOT NULL,
    state TEXT    NOT NULL,
    files INTEGER NOT NULL,
    PRIMARY KEY (route, state)
) STRICT, WITHOUT ROWID;
INSERT INTO "tally" VALUES('orders','cancelled',1);
INSERT INTO "tally" VALUES('orders','failed',1);
INSERT INTO "tally" VALUES('orders','held',1);
INSERT INTO "tally" VALUES('orders','missing',1);
INSERT INTO "tally" VALUES('orders','sent',1);
CREATE INDEX file_unsettled ON file (id) WHERE settled = 0;
CREATE INDEX file_troubled ON file (route, digest) WHERE settled = 1 AND state <> 'sent';
CREATE INDEX file_name ON file (name);
CREATE INDEX file_previous ON file (previous) WHERE previous IS NOT NULL;
COMMIT;
