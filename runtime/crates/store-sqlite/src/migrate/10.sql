-- From version 9 to version 10: the blocked deliveries and the dead letters of one function are found without the others.

DROP INDEX deliveries_dead;
CREATE INDEX deliveries_blocked ON deliveries (function, id) WHERE state = 2;
CREATE INDEX deliveries_dead ON deliveries (function, id) WHERE state = 4;
