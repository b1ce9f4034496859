-- From version 6 to version 7: adds the verified sender of events. A row without a verified sender keeps its checksum.

ALTER TABLE events ADD COLUMN principal TEXT;
