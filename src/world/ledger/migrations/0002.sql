-- Schema 2: runs. Frozen: a change to it is a further migration.
--
-- A file that the server has accepted may have started a run there, which is asked for until it
-- has ended; and where no answer came, the flow's runs are looked up.

-- The server's id of the run that the file started.
ALTER TABLE file ADD COLUMN run TEXT;

-- Since when its run is asked for; a file that has this is accepted and never attempted again.
ALTER TABLE file ADD COLUMN confirming_since INTEGER;

-- Whose run is it?
CREATE INDEX file_run ON file (run) WHERE run IS NOT NULL;

-- Which attempts were under way at a time? They begin in the order of time, so this costs an
-- append.
CREATE INDEX attempt_begun ON attempt (begun_at);
