-- From version 2 to version 3: rows have checksums. Every row gets its checksum here, in one transaction: if some rows
-- could have no checksum, a damaged row could pass for one of them.

ALTER TABLE meta ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE functions ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE events ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE known ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE deliveries ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE attempts ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE replays ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE marks ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE state ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;

UPDATE meta SET sum = sum_of(key, value);
UPDATE functions SET sum = sum_of(id, name);
UPDATE events SET sum = sum_of(seq, id, source, type, subject, time, datacontenttype, dataschema, extensions, data_kind,
  accepted_ms, first_delivery, owed, cause, root, hops, origin, data);
UPDATE known SET sum = sum_of(seq, id, source, accepted_ms);
UPDATE deliveries SET sum = sum_of(id, event, function, trigger, order_key, origin, bytes, replay)
  + sum_of(state, attempts, forgiven, since_ms, due_ms, cause);
UPDATE attempts SET sum = sum_of(delivery, attempt, started_ms, duration_us, outcome, message);
UPDATE replays SET sum = sum_of(id, filter, created_ms, until) + sum_of(state, position, events);
UPDATE marks SET sum = sum_of(scope, key, value);
UPDATE state SET sum = sum_of(bucket, key, value, version);
