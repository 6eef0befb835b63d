-- Schema 3. Frozen: a change to it is a further migration.

-- Grows with every start, every end and every minute of work, and is repeated in each mark: a
-- ledger whose epoch is below that of a mark is an old copy.
ALTER TABLE ledger ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;

-- Since when it is known to be an old copy, until a person has let every route go on.
ALTER TABLE ledger ADD COLUMN behind_at INTEGER;

-- The boot in which this ledger is worked with and not synced (`process-crash`); none after a clean
-- end. A start that finds the name of another boot knows that the record may be older than the truth.
ALTER TABLE ledger ADD COLUMN unsynced_boot TEXT;

-- Files with an id below this may have lost their moves in such a power cut, although that is on
-- record.
ALTER TABLE ledger ADD COLUMN unsure_below INTEGER NOT NULL DEFAULT 0;

-- When it was last found to be an old copy; for good: what was sent in between is on no record.
ALTER TABLE ledger ADD COLUMN was_behind_at INTEGER;

-- Which folder holds the mark: an unmounted volume leaves another one under the same name.
ALTER TABLE root ADD COLUMN volume INTEGER;
ALTER TABLE root ADD COLUMN number INTEGER;

-- Why a route is paused, where no person has paused it.
ALTER TABLE route ADD COLUMN pause_code TEXT;

-- Ledgers that were lost or taken over, and the ids that they had given out. Keys of their files
-- derive from their ids.
CREATE TABLE lost (
    ledger   BLOB    PRIMARY KEY NOT NULL CHECK (length(ledger) = 16),
    ids_from INTEGER NOT NULL,
    ids_end  INTEGER NOT NULL,  -- 0: nobody knows
    noted_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO lost (ledger, ids_from, ids_end, noted_at)
SELECT replaces, 0, 0, created_at FROM ledger WHERE replaces IS NOT NULL;

-- Files of routes that look for duplicates, by what twins have in common: a digest of method, URL
-- and body. A duplicate that a person let go is not in it any more.
CREATE TABLE twin (
    file INTEGER PRIMARY KEY REFERENCES file (id),
    twin BLOB    NOT NULL
) STRICT;

CREATE INDEX twin_others ON twin (twin);
