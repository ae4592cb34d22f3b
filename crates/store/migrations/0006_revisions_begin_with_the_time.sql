-- The revisions of a new database begin with the time in milliseconds. Less than a thousand writes
-- a second on average, so they are above all revisions of a database that was there before: who
-- still knows one of those is told that it is gone, and cannot take it for one of these.
UPDATE resource_revision
SET latest = CAST(unixepoch('subsec') * 1000 AS BIGINT), compacted = CAST(unixepoch('subsec') * 1000 AS BIGINT)
WHERE latest = 1 AND NOT EXISTS (SELECT 1 FROM resource_log);
