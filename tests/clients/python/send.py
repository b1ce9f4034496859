"""Sends events with the official Python client of CloudEvents, version 1.12 or 2.2, in all modes.

Arguments: the URL of an http source, and a file with cases. Prints one line of JSON for each request: the case, the
mode, the id and time of the event as they were sent, and the response. The status is 0 if the client refused the event.
"""

import base64
import http.client
import json
import sys
from contextlib import closing
from importlib.metadata import version
from urllib.parse import urlsplit

VERSION = version("cloudevents").split(".")[0]

if VERSION == "1":
    from cloudevents.conversion import to_binary, to_structured
    from cloudevents.http import CloudEvent

    def structured(attributes, data):
        return to_structured(CloudEvent(attributes, data))

    def binary(attributes, data):
        # The client's own marshaller writes JSON, whatever the media type is.
        is_text = isinstance(data, str) and attributes.get("datacontenttype", "").startswith("text/")
        return to_binary(CloudEvent(attributes, data), (lambda text: text) if is_text else None)

else:
    from cloudevents.core.bindings.http import to_binary_event, to_structured_event
    from cloudevents.core.v1.event import CloudEvent
    from dateutil.parser import isoparse

    def event(attributes, data):
        if "time" in attributes:
            attributes = {**attributes, "time": isoparse(attributes["time"])}
        return CloudEvent(attributes, data)

    def structured(attributes, data):
        message = to_structured_event(event(attributes, data))
        return message.headers, message.body

    def binary(attributes, data):
        message = to_binary_event(event(attributes, data))
        return message.headers, message.body


def message(mode, attributes, data):
    """Returns the headers, the body and the time of an event."""
    if mode == "binary":
        headers, body = binary(attributes, data)
        return headers, body, headers.get("ce-time")
    headers, body = structured(attributes, data)
    time = json.loads(body).get("time")
    if mode == "batched":
        return {"content-type": "application/cloudevents-batch+json"}, b"[" + body + b"]", time
    return headers, body, time


def send(url, mode, case):
    identity = f"python-{VERSION}-{mode}-{case['name']}"
    attributes = {"type": "client.sent", "source": "/clients", **case["attributes"], "id": identity}
    data = case.get("json", case.get("text"))
    if "base64" in case:
        data = base64.b64decode(case["base64"])
    sent = {"case": case["name"], "mode": mode, "id": identity}
    with closing(http.client.HTTPConnection(url.netloc, timeout=60)) as connection:
        try:
            headers, body, time = message(mode, attributes, data)
            connection.request("POST", url.path, body, headers)
        except Exception as error:  # whatever the client raises for an event that it refuses
            return {**sent, "status": 0, "detail": repr(error)}
        response = connection.getresponse()
        sent.update(time=time, status=response.status, detail=response.read().decode())
    return sent


def main():
    url = urlsplit(sys.argv[1])
    with open(sys.argv[2], encoding="utf-8") as file:
        cases = json.load(file)
    for case in cases:
        for mode in ["structured", "binary", "batched"]:
            print(json.dumps(send(url, mode, case)))


main()
