-- The embedded store, version 1 (PRAGMA user_version). Times are milliseconds since the Unix epoch.

CREATE TABLE meta (                     -- properties of the store
  key   TEXT PRIMARY KEY,
  value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE functions (                -- full names, app/function; ids are never reused
  id   INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE
);

CREATE TABLE events (                   -- all accepted events, in accept order
  seq             INTEGER PRIMARY KEY,
  id              TEXT NOT NULL,        -- CloudEvents attributes
  source          TEXT NOT NULL,
  type            TEXT NOT NULL,
  subject         TEXT,
  time            TEXT,
  datacontenttype TEXT,
  dataschema      TEXT,
  extensions      TEXT,                 -- JSON object of strings; NULL when there are none
  data_kind       INTEGER NOT NULL,     -- 0 none, 1 JSON text, 2 text, 3 binary
  data            BLOB,
  accepted_ms     INTEGER NOT NULL,
  first_delivery  INTEGER NOT NULL,     -- its deliveries are first_delivery .. first_delivery + owed - 1
  owed            INTEGER NOT NULL,
  cause           INTEGER,              -- the delivery whose function published it
  root            INTEGER,              -- the event from outside that started the chain
  hops            INTEGER NOT NULL
);
CREATE UNIQUE INDEX events_by_id ON events (id, source);
CREATE INDEX events_by_cause ON events (cause) WHERE cause IS NOT NULL;

CREATE TABLE deliveries (               -- one event owed to one function
  id        INTEGER PRIMARY KEY,
  event     INTEGER NOT NULL,
  function  INTEGER NOT NULL,
  trigger   TEXT NOT NULL,
  order_key TEXT,
  state     INTEGER NOT NULL,           -- 0 ready, 1 retrying, 2 blocked, 3 done, 4 dead, 5 purged
  attempts  INTEGER NOT NULL DEFAULT 0, -- number that ended
  forgiven  INTEGER NOT NULL DEFAULT 0, -- number of these before the last redrive
  since_ms  INTEGER NOT NULL,           -- accepted or redriven: start of max_age
  due_ms    INTEGER,                    -- state 1: when the next attempt is due
  cause     TEXT                        -- states 4 and 5: why it became a dead letter
);
CREATE INDEX deliveries_ready ON deliveries (function, id) WHERE state = 0;
CREATE INDEX deliveries_due ON deliveries (function, due_ms) WHERE state = 1;
CREATE INDEX deliveries_dead ON deliveries (id) WHERE state = 4;
-- The unfinished deliveries of an order key: the first one may run, the others are blocked.
CREATE INDEX deliveries_keyed ON deliveries (function, order_key, id)
  WHERE order_key IS NOT NULL AND state IN (0, 1, 2, 4);

CREATE TABLE attempts (                 -- every attempt that ended
  delivery    INTEGER NOT NULL,
  attempt     INTEGER NOT NULL,
  started_ms  INTEGER NOT NULL,
  duration_us INTEGER NOT NULL,
  outcome     TEXT NOT NULL,
  message     TEXT,
  PRIMARY KEY (delivery, attempt)
) WITHOUT ROWID;

CREATE TABLE marks (                    -- values that sources store with events
  scope TEXT NOT NULL,
  key   TEXT NOT NULL,
  value BLOB NOT NULL,
  PRIMARY KEY (scope, key)
) WITHOUT ROWID;
