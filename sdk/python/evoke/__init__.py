"""Write functions for Evoke in Python.

    from evoke import Event, Reject, log, publish

    def handle(event: Event) -> None:
        order = event.json()
        if order["total"] <= 0:
            raise Reject("the total must be more than 0")
        log.info(f"{order['customer']} pays {order['total']}")
        publish("payment.taken", {"total": order["total"]}, subject=order["customer"])

The attempt succeeds when `handle` returns. Only then do the events that it published and its state writes take effect, all
of them or none. `Reject` and `Retry` choose how it fails; any other exception is a retry by the function's policy, and its
traceback is in the logs.

`evoke.state` is the stored state, and `evoke.http` sends requests. Import them only if the function uses them: the
component then needs the grants of `allow: { state: true }` and `allow: { http: [ORIGIN] }`.
"""

from . import config, log
from ._event import Delivery, Event
from ._failure import Refused, Reject, Retry
from ._publish import publish
from .config import secret

__all__ = ["Delivery", "Event", "Refused", "Reject", "Retry", "config", "log", "publish", "secret"]
