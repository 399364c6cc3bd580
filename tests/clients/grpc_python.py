"""Publishes events over gRPC with a client that grpcio-tools has generated from proto/.

    python grpc_python.py GENERATED ADDRESS WRITE_KEY < events.json

GENERATED is the folder of the generated modules, ADDRESS is host:port. Standard input: an array of Segment-spec events with
their messageId. The first half goes in one Publish call, the rest on a PublishStream, one event per batch. Prints
{"delivered": [messageId], "errors": [text]}.
"""

import json
import sys

import grpc

sys.path.insert(0, sys.argv[1])
from tracklayer.event.v1 import event_pb2  # noqa: E402
from tracklayer.ingest.v1 import ingest_pb2, ingest_pb2_grpc  # noqa: E402

address, write_key = sys.argv[2:4]
events = json.load(sys.stdin)
metadata = [("authorization", f"Bearer {write_key}")]
delivered = []
errors = []


def publish_event(event):
    def text(key):
        return json.dumps(event[key]) if key in event else ""

    return ingest_pb2.PublishEvent(
        message_id=event["messageId"],
        type=event_pb2.EventType.Value(f"EVENT_TYPE_{event['type'].upper()}"),
        name=event.get("event", ""),
        anonymous_id=event.get("anonymousId", ""),
        user_id=event.get("userId", ""),
        properties_json=text("properties"),
        traits_json=text("traits"),
        context_json=text("context"),
    )


def note(response):
    for result in response.results:
        if result.WhichOneof("outcome") == "accepted":
            delivered.append(result.message_id)
        else:
            errors.append(str(result))


half = (len(events) + 1) // 2
with grpc.insecure_channel(address) as channel:
    ingest = ingest_pb2_grpc.IngestServiceStub(channel)
    request = ingest_pb2.PublishRequest(events=[publish_event(event) for event in events[:half]])
    note(ingest.Publish(request, metadata=metadata, timeout=30))

    batches = [
        ingest_pb2.PublishStreamRequest(
            sequence=sequence, batch=ingest_pb2.PublishRequest(events=[publish_event(event)])
        )
        for sequence, event in enumerate(events[half:], start=1)
    ]
    acknowledged = set()
    for ack in ingest.PublishStream(iter(batches), metadata=metadata, timeout=30):
        acknowledged.add(ack.sequence)
        if ack.WhichOneof("result") == "response":
            note(ack.response)
        else:
            errors.append(str(ack.refused))
    if acknowledged != {batch.sequence for batch in batches}:
        errors.append(f"acknowledged: {sorted(acknowledged)}")
print(json.dumps({"delivered": delivered, "errors": errors}))
