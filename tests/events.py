"""What TensorBoard's files hold, read without TensorFlow."""

from tensorboardX.proto import event_pb2


def tensorboard_scalars(path):
    """Of a file of events: name -> step -> value."""
    raw, found = path.read_bytes(), {}
    while raw:
        # A record: length (8 bytes), its checksum (4), the event, its checksum (4).
        length = int.from_bytes(raw[:8], "little")
        event = event_pb2.Event.FromString(raw[12 : 12 + length])
        for value in event.summary.value:
            found.setdefault(value.tag, {})[event.step] = value.simple_value
        raw = raw[16 + length :]
    return found
