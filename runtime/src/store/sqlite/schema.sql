-- The embedded store, version 4 (PRAGMA user_version). Times are milliseconds since the Unix epoch.
--
-- A column `sum` tells whether the rest of its row is what was written; nothing of a row is served otherwise. It is the
-- CRC-32 of zlib over the row's other columns, in the order in which they stand here: of each one byte for its type
-- (0 NULL, 1 integer, 2 real, 3 text, 4 blob), then an integer or real as 8 bytes, a text or blob as its length in 8
-- bytes and its bytes; numbers with the lowest byte first. Rows that change in place have the CRC of the columns that
-- stay plus that of those that change, which are listed: so an update exchanges its part and hides no damage.
-- The totals have none: `evoke check` counts what they say.

CREATE TABLE meta (                     -- facts about the store itself
  key   TEXT PRIMARY KEY,
  value TEXT NOT NULL,
  sum   INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

CREATE TABLE functions (                -- full names, app/function; ids are never used again
  id   INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  sum  INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE events (                   -- every accepted event, in its total order
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
  accepted_ms     INTEGER NOT NULL,
  first_delivery  INTEGER NOT NULL,     -- its deliveries are first_delivery .. first_delivery + owed - 1
  owed            INTEGER NOT NULL,
  cause           INTEGER,              -- the delivery whose function published it
  root            INTEGER,              -- the event from outside that started the chain
  hops            INTEGER NOT NULL,
  origin          INTEGER NOT NULL DEFAULT 0, -- hash of the URI of the source where the chain came in; 0: nobody
  sum             INTEGER NOT NULL DEFAULT 0,
  data            BLOB                  -- the last: what is before it is read without it
);
CREATE INDEX events_by_id ON events (id, source); -- unique within the dedup window: the writer looks before it adds
CREATE INDEX events_by_cause ON events (cause) WHERE cause IS NOT NULL;

CREATE TABLE known (                    -- what retention removed before the dedup window was over
  seq         INTEGER PRIMARY KEY,
  id          TEXT NOT NULL,
  source      TEXT NOT NULL,
  accepted_ms INTEGER NOT NULL,
  sum         INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX known_by_id ON known (id, source);

CREATE TABLE deliveries (               -- one event owed to one function; replays add some to those of an event
  id        INTEGER PRIMARY KEY,
  event     INTEGER NOT NULL,
  function  INTEGER NOT NULL,
  trigger   TEXT NOT NULL,
  order_key TEXT,
  state     INTEGER NOT NULL,           -- 0 ready, 1 retrying, 2 blocked, 3 done, 4 dead, 5 purged
  attempts  INTEGER NOT NULL DEFAULT 0, -- that ended
  forgiven  INTEGER NOT NULL DEFAULT 0, -- of these, before it was redriven
  since_ms  INTEGER NOT NULL,           -- accepted or redriven: what max_age counts from
  due_ms    INTEGER,                    -- state 1: not before
  cause     TEXT,                       -- states 4 and 5: why it was given up
  origin    INTEGER NOT NULL DEFAULT 0, -- its event's
  bytes     INTEGER NOT NULL DEFAULT 0, -- its event's, attributes and data
  replay    INTEGER NOT NULL DEFAULT 0, -- the replay that offered the event again; 0: it is live
  sum       INTEGER NOT NULL DEFAULT 0, -- from state to cause, and the two below, columns change
  done_ms   INTEGER,                    -- state 3: when the attempt that was done started
  done_us   INTEGER                     --   and how long it took; NULL before version 4
);
-- Comparisons, not lists: SQLite makes a table of three values and more, each time a row is written.
CREATE INDEX deliveries_ready ON deliveries (function, id) WHERE state = 0 AND replay = 0;
CREATE INDEX deliveries_due ON deliveries (function, due_ms) WHERE state = 1 AND replay = 0;
CREATE INDEX replayed_ready ON deliveries (function, id) WHERE state = 0 AND replay <> 0;
CREATE INDEX replayed_due ON deliveries (function, due_ms) WHERE state = 1 AND replay <> 0;
CREATE INDEX replayed_pending ON deliveries (replay, id) WHERE state < 3 AND replay <> 0;
CREATE INDEX replayed_events ON deliveries (event) WHERE replay <> 0;
CREATE INDEX deliveries_dead ON deliveries (id) WHERE state = 4;
-- Who of an order key is not finished: the first of them may run, the others are blocked.
CREATE INDEX deliveries_keyed ON deliveries (function, order_key, replay, id)
  WHERE order_key IS NOT NULL AND (state < 3 OR state = 4);

CREATE TABLE attempts (                 -- attempts that ended and were not done: mostly there are none
  delivery    INTEGER NOT NULL,
  attempt     INTEGER NOT NULL,
  started_ms  INTEGER NOT NULL,
  duration_us INTEGER NOT NULL,
  outcome     TEXT NOT NULL,
  message     TEXT,
  sum         INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (delivery, attempt)
) WITHOUT ROWID;

CREATE TABLE replays (                  -- stored events that are offered again
  id         INTEGER PRIMARY KEY,
  filter     TEXT NOT NULL,             -- JSON: what was asked for
  created_ms INTEGER NOT NULL,
  state      INTEGER NOT NULL,          -- 0 running, 1 paused, 2 done, 3 cancelling, 4 cancelled
  position   INTEGER NOT NULL,          -- events up to here were looked at
  until      INTEGER NOT NULL,          -- events up to here are looked at
  events     INTEGER NOT NULL DEFAULT 0, -- that were offered
  sum        INTEGER NOT NULL DEFAULT 0 -- state, position and events change
);

CREATE TABLE marks (                    -- what sources keep beside their events
  scope TEXT NOT NULL,
  key   TEXT NOT NULL,
  value BLOB NOT NULL,
  sum   INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (scope, key)
) WITHOUT ROWID;

CREATE TABLE state (                    -- what functions keep
  bucket  TEXT NOT NULL,                -- app/function, or app for the one that its functions share
  key     TEXT NOT NULL,
  value   BLOB NOT NULL,
  version INTEGER NOT NULL,             -- of the transaction that wrote it, and no other: what a read is validated by
  sum     INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (bucket, key)
) WITHOUT ROWID;

CREATE TABLE totals (                   -- running numbers, part of every commit: nobody has to count
  function INTEGER NOT NULL,            -- 0: of the store itself; -n: of replay n
  name     TEXT NOT NULL,               -- of the store: events, deliveries, owed and replayed, all that ever were;
  count    INTEGER NOT NULL,            --   removed, removed owed and removed replayed of these; the newest, removed
                                        --   to. Of a function: its deliveries by state, all that ever were; removed
                                        --   done and removed purged of these. Of a replay: its deliveries by state.
  PRIMARY KEY (function, name)
) WITHOUT ROWID;
