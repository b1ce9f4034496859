-- From version 5 to version 6: adds the exit counts of deliveries, and an index of the events of each chain.

CREATE TABLE exits (                    -- deliveries that ran when the process ended without a clean stop
  delivery INTEGER PRIMARY KEY,
  count    INTEGER NOT NULL,            -- number of these ends; 1 after a redrive
  sum      INTEGER NOT NULL DEFAULT 0
);

CREATE INDEX events_by_root ON events (root) WHERE root IS NOT NULL;
