-- From version 6 to version 7: events have the verified sender. A row without one keeps its checksum.

ALTER TABLE events ADD COLUMN principal TEXT;
