from evoke import Event, Reject, log, publish


def handle(event: Event) -> None:
    guest = event.json()
    if not guest.get("name"):
        raise Reject("the guest has no name")
    log.info(f"greeting {guest['name']}")
    publish("guest.greeted", {"text": f"Hello, {guest['name']}!"}, subject=guest["name"])
