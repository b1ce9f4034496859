-- From version 7 to version 8: events can wait for the time in their attribute `notbefore`. Rows keep their checksums.

ALTER TABLE events ADD COLUMN released_ms INTEGER;

CREATE TABLE scheduled (
  seq       INTEGER PRIMARY KEY,
  due_ms    INTEGER NOT NULL,
  origin    INTEGER NOT NULL,
  bytes     INTEGER NOT NULL,
  published INTEGER NOT NULL,
  sum       INTEGER NOT NULL
);
CREATE INDEX scheduled_due ON scheduled (due_ms);
