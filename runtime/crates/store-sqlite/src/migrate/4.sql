-- From version 3 to version 4: a delivery that is done says itself how its last attempt went. What was done before is
-- left where it is, with the other attempts. The sums of what is damaged stay wrong.

ALTER TABLE deliveries ADD COLUMN done_ms INTEGER;
ALTER TABLE deliveries ADD COLUMN done_us INTEGER;
UPDATE deliveries SET sum = sum - sum_of(state, attempts, forgiven, since_ms, due_ms, cause)
  + sum_of(state, attempts, forgiven, since_ms, due_ms, cause, done_ms, done_us);
