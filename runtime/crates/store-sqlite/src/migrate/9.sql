-- From version 8 to version 9: recordings of attempts.

CREATE TABLE recordings (
  id          INTEGER PRIMARY KEY,
  function    INTEGER NOT NULL,
  number      INTEGER NOT NULL,
  delivery    INTEGER NOT NULL,
  attempt     INTEGER NOT NULL,
  start_bytes INTEGER NOT NULL,
  expires_ms  INTEGER NOT NULL,
  sum         INTEGER NOT NULL,
  data        BLOB NOT NULL
);
CREATE INDEX recordings_of ON recordings (function, number, start_bytes);
CREATE INDEX recordings_by_delivery ON recordings (delivery, attempt);
CREATE INDEX recordings_expiry ON recordings (expires_ms);
