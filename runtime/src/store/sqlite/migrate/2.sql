-- From version 1 to version 2: functions keep state. What schema.sql has and version 1 had not.

CREATE TABLE state (                    -- what functions keep
  bucket  TEXT NOT NULL,                -- app/function, or app for the one that its functions share
  key     TEXT NOT NULL,
  value   BLOB NOT NULL,
  version INTEGER NOT NULL,             -- ascends with every write of the store's life: what a read is validated by
  PRIMARY KEY (bucket, key)
) WITHOUT ROWID;
