"""Sends events through Segment's library for Python, unmodified; only `host` names TrackLayer.

    python analytics_python.py ADDRESS WRITE_KEY < events.json

Standard input: an array of Segment-spec events with their messageId. Prints {"delivered": [messageId], "errors": [text]}; the
library tells of failures only, so what did not fail counts as delivered.
"""

import json
import sys

from segment.analytics.client import Client

host, write_key = sys.argv[1:3]
events = json.load(sys.stdin)
failed = []
errors = []


def on_error(error, batch):
    errors.append(str(error))
    failed.extend(item["messageId"] for item in batch)


client = Client(write_key, host=host, on_error=on_error)
for event in events:
    common = {"message_id": event["messageId"]}
    for key, name in {
        "userId": "user_id", "anonymousId": "anonymous_id", "context": "context", "properties": "properties",
        "traits": "traits", "event": "event",
    }.items():
        if key in event:
            common[name] = event[key]
    getattr(client, event["type"])(**common)
client.flush()
client.join()
delivered = [event["messageId"] for event in events if event["messageId"] not in failed]
print(json.dumps({"delivered": delivered, "errors": errors}))
