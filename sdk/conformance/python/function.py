"""The guest of the suite in Python: `how` in the data says what to do."""

import random
import time
import uuid

from evoke import Delivery, Event, Reject, Retry, config, http, log, publish, secret, state


def look_up(table):
    return table["missing"]["key"]


def on_state():
    state.set("text", "grün 😀")
    state.set_bytes("raw", bytes([0, 255]))
    count = state.increment("count", 3)
    state.update("list", lambda numbers: numbers + [1], [])
    state.delete("gone")
    publish("c.state", {
        "count": count, "text": state.get("text"), "has": state.exists("gone"), "keys": sorted(state.keys()),
        "before": state.get("before"), "raw": list(state.get_bytes("raw")),
    })  # fmt: skip


def on_http():
    url = config.get("URL")
    sent = http.post(f"{url}/echo?n=1", json={"text": "grün 😀"}).ok().json()
    second = http.put(f"{url}/echo", body=b"x" * 10_000).ok().json()
    missing = http.get(f"{url}/missing").status
    publish("c.http", [sent, second["size"], second["key"], missing])


def handle(event: Event, delivery: Delivery) -> None:
    how = event.extensions.get("how") or event.json()["how"]
    if how == "echo":
        publish("c.echo", event.data, subject=event.subject, extensions=event.extensions)
    elif how == "bytes":
        publish("c.bytes", event.bytes, datacontenttype="application/octet-stream")
    elif how == "order":
        for n in range(5):
            publish("c.order", n)
    elif how == "reject":
        raise Reject("not today: grün 😀")
    elif how == "retry":
        raise Retry("later", after_ms=1500)
    elif how == "throw":
        look_up({})
    elif how == "undo":
        publish("c.undo", 1)
        state.set("undo", 1)
        raise Retry("undone")
    elif how == "refused":
        publish("other.type", 1)
    elif how == "spin":
        while True:
            pass
    elif how == "state":
        on_state()
    elif how == "shared":
        publish("c.shared", state.shared.increment("seen"))
    elif how == "http":
        on_http()
    elif how == "http status":
        http.get(config.get("URL") + event.json()["path"]).ok()
    elif how == "outside":
        publish("c.outside", {"wall": int(time.time() * 1000), "random": [random.random(), str(uuid.uuid4())]})
    elif how == "http origin":
        http.get("http://elsewhere.example/")
    elif how == "config":
        publish("c.config", {"set": config.get("SET"), "unset": config.get("UNSET"), "secret": secret("SECRET")})
    elif how == "big":
        publish("c.big", "ü" * 300_000)
    elif how == "log":
        log.info("grün 😀")
        log.warning("careful")
        log.error("wrong")
    elif how == "delivery":
        publish("c.delivery", {
            "id": delivery.id, "attempt": delivery.attempt, "replay": delivery.replay, "trigger": delivery.trigger,
        })  # fmt: skip
