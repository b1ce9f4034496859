-- From version 9 to version 10: the indexes of blocked deliveries and of dead letters begin with the function.

DROP INDEX deliveries_dead;
CREATE INDEX deliveries_blocked ON deliveries (function, id) WHERE state = 2;
CREATE INDEX deliveries_dead ON deliveries (function, id) WHERE state = 4;
