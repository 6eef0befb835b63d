-- Schema 3. Frozen: a change to it is a further migration.

-- Files of routes that look for duplicates, by what twins have in common: a digest of method, URL
-- and body. A duplicate that a person let go is not in it any more.
CREATE TABLE twin (
    file INTEGER PRIMARY KEY REFERENCES file (id),
    twin BLOB    NOT NULL
) STRICT;

CREATE INDEX twin_others ON twin (twin);
