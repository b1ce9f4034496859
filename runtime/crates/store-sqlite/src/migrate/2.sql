-- From version 1 to version 2: adds the state of functions, the dedup window, running totals and replays. `schema.sql`
-- describes the new tables and columns.

CREATE TABLE state (                    -- state of functions
  bucket  TEXT NOT NULL,                -- app/function, or app for the bucket shared by its functions
  key     TEXT NOT NULL,
  value   BLOB NOT NULL,
  version INTEGER NOT NULL,             -- unique to the transaction that wrote it; reads are validated by it
  PRIMARY KEY (bucket, key)
) WITHOUT ROWID;

DROP INDEX events_by_id;
CREATE INDEX events_by_id ON events (id, source); -- unique within the dedup window: the writer checks before it inserts

CREATE TABLE known (
  seq         INTEGER PRIMARY KEY,
  id          TEXT NOT NULL,
  source      TEXT NOT NULL,
  accepted_ms INTEGER NOT NULL
);
CREATE INDEX known_by_id ON known (id, source);

CREATE TABLE totals (
  function INTEGER NOT NULL,
  name     TEXT NOT NULL,
  count    INTEGER NOT NULL,
  PRIMARY KEY (function, name)
) WITHOUT ROWID;
ALTER TABLE events ADD COLUMN origin INTEGER NOT NULL DEFAULT 0;
ALTER TABLE deliveries ADD COLUMN origin INTEGER NOT NULL DEFAULT 0;
ALTER TABLE deliveries ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE deliveries ADD COLUMN replay INTEGER NOT NULL DEFAULT 0;
DROP INDEX deliveries_ready;
DROP INDEX deliveries_due;
DROP INDEX deliveries_keyed;
CREATE INDEX deliveries_ready ON deliveries (function, id) WHERE state = 0 AND replay = 0;
CREATE INDEX deliveries_due ON deliveries (function, due_ms) WHERE state = 1 AND replay = 0;
CREATE INDEX replayed_ready ON deliveries (function, id) WHERE state = 0 AND replay <> 0;
CREATE INDEX replayed_due ON deliveries (function, due_ms) WHERE state = 1 AND replay <> 0;
CREATE INDEX replayed_pending ON deliveries (replay, id) WHERE state < 3 AND replay <> 0;
CREATE INDEX replayed_events ON deliveries (event) WHERE replay <> 0;
CREATE INDEX deliveries_keyed ON deliveries (function, order_key, replay, id)
  WHERE order_key IS NOT NULL AND (state < 3 OR state = 4);

CREATE TABLE replays (
  id         INTEGER PRIMARY KEY,
  filter     TEXT NOT NULL,
  created_ms INTEGER NOT NULL,
  state      INTEGER NOT NULL,
  position   INTEGER NOT NULL,
  until      INTEGER NOT NULL,
  events     INTEGER NOT NULL DEFAULT 0
);

UPDATE deliveries SET bytes = (SELECT length(id) + length(source) + length(type) + ifnull(length(data), 0) FROM events WHERE seq = event)
  WHERE (state < 3 OR state = 4);
INSERT INTO totals SELECT 0, 'events', COALESCE(MAX(seq), 0) FROM events;
INSERT INTO totals SELECT 0, 'owed', COALESCE(SUM(owed), 0) FROM events;
INSERT INTO totals SELECT 0, 'deliveries', COALESCE(MAX(id), 0) FROM deliveries;
INSERT INTO totals
  SELECT function, CASE state WHEN 0 THEN 'ready' WHEN 1 THEN 'retrying' WHEN 2 THEN 'blocked'
                              WHEN 3 THEN 'done' WHEN 4 THEN 'dead' ELSE 'purged' END, COUNT(*)
  FROM deliveries GROUP BY function, state;
