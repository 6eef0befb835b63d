-- Schema 4. Frozen: a change to it is a further migration.

-- Since when a person has paused all routes at once, those that are found later among them.
ALTER TABLE ledger ADD COLUMN all_paused_at INTEGER;

-- Up to now only the routes knew.
UPDATE ledger SET all_paused_at = (
    SELECT min(paused_at) FROM route WHERE pause_code = 'all-paused'
);
