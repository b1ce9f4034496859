-- The embedded store, version 10 (PRAGMA user_version). Times are milliseconds since the Unix epoch: `started_ms`,
-- `done_ms` and the `due_ms` of scheduled events by the wall clock, the others in store time, which equals the wall
-- clock until that jumps. The row `clock` of the table meta has the record from which store time continues after a
-- start (JSON, `store_time.rs`).
--
-- The column `sum` is the checksum of its row; a row with a wrong checksum is not returned. It is the CRC-32 of zlib
-- over the row's other columns in the order of this file. Each column contributes one byte for its type (0 NULL, 1
-- integer, 2 real, 3 text, 4 blob), then an integer or real as 8 bytes, a text or blob as its length in 8 bytes and its
-- bytes; all numbers are little-endian. For tables whose rows are updated in place, `sum` is the CRC of the immutable
-- columns plus the CRC of the mutable ones, which are listed: an update replaces only the part of the mutable columns,
-- and so does not hide damage. For events, the checksum also covers `principal` and `released_ms`, after `data`, up to
-- the last of them that is not NULL. The table totals has no checksums: `evoke check` compares it with counted rows.

CREATE TABLE meta (                     -- properties of the store
  key   TEXT PRIMARY KEY,
  value TEXT NOT NULL,
  sum   INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

CREATE TABLE functions (                -- full names, app/function; ids are never reused
  id   INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  sum  INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE origins (                  -- sources through which chains of events enter; ids are never reused
  id  INTEGER PRIMARY KEY,              -- before version 5: a hash of the URI
  uri TEXT UNIQUE,                      -- NULL: not recorded before version 5, and not used since
  sum INTEGER NOT NULL DEFAULT 0
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
  accepted_ms     INTEGER NOT NULL,
  first_delivery  INTEGER NOT NULL,     -- its live deliveries: first_delivery .. first_delivery + owed - 1
  owed            INTEGER NOT NULL,
  cause           INTEGER,              -- the delivery whose function published it
  root            INTEGER,              -- the event from outside that started the chain
  hops            INTEGER NOT NULL,
  origin          INTEGER NOT NULL DEFAULT 0, -- the source where the chain entered; 0: none
  principal       TEXT,                 -- the verified sender; NULL: none, and before version 7
  released_ms     INTEGER,              -- when a scheduled event got its deliveries; NULL: at acceptance, or not yet
  sum             INTEGER NOT NULL DEFAULT 0,
  data            BLOB                  -- last, so that other columns are read without it
);
-- With origin (for an event without cause), unique in the dedup window: the writer checks before it inserts.
CREATE INDEX events_by_id ON events (id, source);
CREATE INDEX events_by_cause ON events (cause) WHERE cause IS NOT NULL;
CREATE INDEX events_by_root ON events (root) WHERE root IS NOT NULL;

CREATE TABLE scheduled (                -- events that wait for their notbefore; they have no deliveries yet
  seq       INTEGER PRIMARY KEY,
  due_ms    INTEGER NOT NULL,           -- the time in notbefore
  origin    INTEGER NOT NULL,           -- origin, size, and whether a function published it: as for a delivery
  bytes     INTEGER NOT NULL,
  published INTEGER NOT NULL,
  sum       INTEGER NOT NULL
);
CREATE INDEX scheduled_due ON scheduled (due_ms);

CREATE TABLE known (                    -- ids of events that retention removed within their dedup window
  seq         INTEGER PRIMARY KEY,
  id          TEXT NOT NULL,
  source      TEXT NOT NULL,
  accepted_ms INTEGER NOT NULL,
  origin      INTEGER DEFAULT 0,        -- NULL: had a cause; 0: not recorded before version 5, matches any
  sum         INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX known_by_id ON known (id, source);

CREATE TABLE deliveries (               -- one event owed to one function; replays add more of them
  id        INTEGER PRIMARY KEY,
  event     INTEGER NOT NULL,
  function  INTEGER NOT NULL,
  trigger   TEXT NOT NULL,
  order_key TEXT,
  state     INTEGER NOT NULL,           -- 0 ready, 1 retrying, 2 blocked, 3 done, 4 dead, 5 purged
  attempts  INTEGER NOT NULL DEFAULT 0, -- number that ended
  forgiven  INTEGER NOT NULL DEFAULT 0, -- number of these before the last redrive
  since_ms  INTEGER NOT NULL,           -- accepted, replayed or redriven: start of max_age
  due_ms    INTEGER,                    -- state 1: when the next attempt is due
  cause     TEXT,                       -- states 4 and 5: why it became a dead letter
  origin    INTEGER NOT NULL DEFAULT 0, -- origin of its event
  bytes     INTEGER NOT NULL DEFAULT 0, -- size of its event, attributes and data
  replay    INTEGER NOT NULL DEFAULT 0, -- the replay that added the delivery; 0: live
  sum       INTEGER NOT NULL DEFAULT 0, -- mutable: state to cause, and the two columns below
  done_ms   INTEGER,                    -- state 3: when the successful attempt started
  done_us   INTEGER                     --   and how long it took; NULL before version 4
);
-- Conditions use comparisons: for a list of three values or more SQLite builds a table whenever a row is written.
CREATE INDEX deliveries_ready ON deliveries (function, id) WHERE state = 0 AND replay = 0;
CREATE INDEX deliveries_due ON deliveries (function, due_ms) WHERE state = 1 AND replay = 0;
CREATE INDEX replayed_ready ON deliveries (function, id) WHERE state = 0 AND replay <> 0;
CREATE INDEX replayed_due ON deliveries (function, due_ms) WHERE state = 1 AND replay <> 0;
CREATE INDEX replayed_pending ON deliveries (replay, id) WHERE state < 3 AND replay <> 0;
CREATE INDEX replayed_events ON deliveries (event) WHERE replay <> 0;
CREATE INDEX deliveries_blocked ON deliveries (function, id) WHERE state = 2;
CREATE INDEX deliveries_dead ON deliveries (function, id) WHERE state = 4;
-- The unfinished deliveries of an order key: the first one may run, the others are blocked.
CREATE INDEX deliveries_keyed ON deliveries (function, order_key, replay, id)
  WHERE order_key IS NOT NULL AND (state < 3 OR state = 4);

CREATE TABLE attempts (                 -- failed attempts, and successful ones with a message; usually none
  delivery    INTEGER NOT NULL,
  attempt     INTEGER NOT NULL,
  started_ms  INTEGER NOT NULL,
  duration_us INTEGER NOT NULL,
  outcome     TEXT NOT NULL,
  message     TEXT,
  sum         INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (delivery, attempt)
) WITHOUT ROWID;

CREATE TABLE recordings (               -- the reads and effects of attempts; the newest recordings of each function
  id          INTEGER PRIMARY KEY,
  function    INTEGER NOT NULL,
  number      INTEGER NOT NULL,         -- position among the recordings of the function
  delivery    INTEGER NOT NULL,
  attempt     INTEGER NOT NULL,
  start_bytes INTEGER NOT NULL,         -- size of all earlier recordings of the function, of removed ones, too
  expires_ms  INTEGER NOT NULL,         -- when it is removed
  sum         INTEGER NOT NULL,         -- covers data as the last column
  data        BLOB NOT NULL             -- JSON: `Recording` of the crate model, in `recording.rs`
);
CREATE INDEX recordings_of ON recordings (function, number, start_bytes);
CREATE INDEX recordings_by_delivery ON recordings (delivery, attempt);
CREATE INDEX recordings_expiry ON recordings (expires_ms);

CREATE TABLE exits (                    -- deliveries that ran when the process ended without a clean stop
  delivery INTEGER PRIMARY KEY,
  count    INTEGER NOT NULL,            -- number of these ends; 1 after a redrive
  sum      INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE replays (                  -- stored events offered again
  id         INTEGER PRIMARY KEY,
  filter     TEXT NOT NULL,             -- the request, as JSON
  created_ms INTEGER NOT NULL,
  state      INTEGER NOT NULL,          -- 0 running, 1 paused, 2 done, 3 cancelling, 4 cancelled, 5 failed
  position   INTEGER NOT NULL,          -- events up to here were processed
  until      INTEGER NOT NULL,          -- the last event to process
  events     INTEGER NOT NULL DEFAULT 0, -- number of offered events
  sum        INTEGER NOT NULL DEFAULT 0 -- mutable: state, position, events
);

CREATE TABLE marks (                    -- values that sources store with events
  scope TEXT NOT NULL,
  key   TEXT NOT NULL,
  value BLOB NOT NULL,
  sum   INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (scope, key)
) WITHOUT ROWID;

CREATE TABLE state (                    -- state of functions
  bucket  TEXT NOT NULL,                -- app/function, or app for the bucket shared by its functions
  key     TEXT NOT NULL,
  value   BLOB NOT NULL,
  version INTEGER NOT NULL,             -- unique to the transaction that wrote it; reads are validated by it
  sum     INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (bucket, key)
) WITHOUT ROWID;

CREATE TABLE totals (                   -- running totals, updated in every commit
  function INTEGER NOT NULL,            -- 0: the store's totals; -n: those of replay n
  name     TEXT NOT NULL,               -- store: events, deliveries, owed, replayed: all ever created;
  count    INTEGER NOT NULL,            --   removed, removed owed, removed replayed: the removed part; removed to:
                                        --   the last removed event; scheduled: the events that wait now. Function: its
                                        --   deliveries by state, all created; removed done, removed purged. Replay:
                                        --   its deliveries by state.
  PRIMARY KEY (function, name)
) WITHOUT ROWID;
