"""Signs webhooks with the libraries of their senders, and verifies signatures of others with them.

Arguments: the address of the listener, and a file with `secrets` by sender and `signed` requests. Sends each body of this
script to each sender's source with the right secret, with a wrong one and at an old time. Prints one line of JSON for
each request: the sender, the variant, the id and the status. Then prints a line for each signed request of the file:
whether the sender's library accepts it.
"""

import http.client
import json
import sys
import time
from contextlib import closing
from datetime import datetime, timezone

from slack_sdk.signature import Clock, SignatureVerifier
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
from stripe import SignatureVerificationError, WebhookSignature

BODIES = [
    '{"id":"evt_%s","event_id":"Ev%s","total":1.10}',
    '{"id":"evt_%s","event_id":"Ev%s","name":"\u00e9\U0001f600\u2028","zero":"\\u0000"}',
    ' \n{ "id" : "evt_%s" , "event_id" : "Ev%s" }\n',
]


def standard(secret, id_, at, body):
    signature = Webhook(secret).sign(id_, datetime.fromtimestamp(at, tz=timezone.utc), body)
    return {"webhook-id": id_, "webhook-timestamp": str(at), "webhook-signature": signature}


def stripe(secret, id_, at, body):
    return {"Stripe-Signature": WebhookSignature.generate_signature_header(body, secret, at)}


def slack(secret, id_, at, body):
    signature = SignatureVerifier(secret).generate_signature(timestamp=str(at), body=body)
    return {"X-Slack-Signature": signature, "X-Slack-Request-Timestamp": str(at)}


def verifies(sender, secret, headers, body):
    """Returns whether the sender's library accepts a signed request."""
    try:
        if sender == "billing":
            Webhook(secret).verify(body, headers, json_parse=False)
        elif sender == "stripe":
            WebhookSignature.verify_header(body, headers["stripe-signature"], secret, tolerance=300)
        else:
            return SignatureVerifier(secret, Clock()).is_valid_request(body, headers)
    except (WebhookVerificationError, SignatureVerificationError):
        return False
    return True


def post(address, path, headers, body):
    with closing(http.client.HTTPConnection(address, timeout=60)) as connection:
        connection.request("POST", path, body.encode(), {"content-type": "application/json", **headers})
        response = connection.getresponse()
        return response.status, response.read().decode()


def main():
    address, file = sys.argv[1:]
    with open(file, encoding="utf-8") as text:
        given = json.load(text)
    for sender, sign in [("billing", standard), ("stripe", stripe), ("slack", slack)]:
        secret, wrong = given["secrets"][sender], given["wrong"][sender]
        for n, template in enumerate(BODIES):
            id_ = f"{sender}-{n}"
            body = template % (id_, id_)
            now = int(time.time())
            expected = {"billing": id_, "stripe": f"evt_{id_}", "slack": f"Ev{id_}"}[sender]
            right = sign(secret, id_, now, body)
            assert verifies(sender, secret, {k.lower(): v for k, v in right.items()}, body)
            variants = [
                ("wrong", sign(wrong, id_, now, body)),
                ("old", sign(secret, id_, now - 301, body)),
                ("none", {}),
                ("right", right),
                ("again", right),
            ]
            for variant, headers in variants:
                status, answer = post(address, f"/{sender}", headers, body)
                line = {"sender": sender, "variant": variant, "id": expected, "status": status, "answer": answer}
                print(json.dumps(line))
    for request in given["signed"]:
        sender = request["sender"]
        accepted = verifies(sender, given["secrets"][sender], request["headers"], request["body"])
        changed = verifies(sender, given["secrets"][sender], request["headers"], request["body"] + " ")
        print(json.dumps({"sender": sender, "variant": "verified", "accepted": accepted, "changed": changed}))


main()
