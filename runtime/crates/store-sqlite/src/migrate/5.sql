-- From version 4 to version 5: origins have URIs, and each origin has ids of its own. Columns that contain origins do
-- not change: their values were hashes of URIs and are ids now. The hash is the hash of the event's own source if the
-- producer did not choose another source. Other URIs are added when their source is registered.

CREATE TABLE origins (
  id  INTEGER PRIMARY KEY,
  uri TEXT UNIQUE,
  sum INTEGER NOT NULL DEFAULT 0
);
INSERT INTO origins (id, uri) VALUES (origin_of('/evoke'), '/evoke'), (origin_of('/cli'), '/evoke/emit');
INSERT OR IGNORE INTO origins (id, uri)
  SELECT DISTINCT origin, source FROM events WHERE origin <> 0 AND cause IS NULL AND origin = origin_of(source);
INSERT OR IGNORE INTO origins (id) SELECT DISTINCT origin FROM events WHERE origin <> 0;
UPDATE origins SET sum = sum_of(id, uri);

-- The checksums of damaged rows stay wrong.
ALTER TABLE known ADD COLUMN origin INTEGER DEFAULT 0;
UPDATE known SET sum = sum - sum_of(seq, id, source, accepted_ms) + sum_of(seq, id, source, accepted_ms, origin);
