-- From version 3 to version 4: the row of a done delivery has the start and the duration of its successful attempt. For
-- deliveries that were done before, these stay in the table attempts. The checksums of damaged rows stay wrong.

ALTER TABLE deliveries ADD COLUMN done_ms INTEGER;
ALTER TABLE deliveries ADD COLUMN done_us INTEGER;
UPDATE deliveries SET sum = sum - sum_of(state, attempts, forgiven, since_ms, due_ms, cause)
  + sum_of(state, attempts, forgiven, since_ms, due_ms, cause, done_ms, done_us);
