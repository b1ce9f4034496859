"""Events: received ones, and the data of published ones."""

import json
from dataclasses import dataclass
from typing import Any, Dict, Optional, Tuple

from ._failure import Reject


@dataclass
class Event:
    """A CloudEvents 1.0 event. Times are RFC 3339."""

    id: str
    #: `/APP/SOURCE`, or `/APP/FUNCTION` if a function published the event.
    source: str
    type: str
    subject: Optional[str]
    time: Optional[str]
    datacontenttype: Optional[str]
    dataschema: Optional[str]
    #: All other attributes, by name.
    extensions: Dict[str, str]
    #: The payload; empty if the event has no data.
    bytes: bytes

    @property
    def data(self) -> Any:
        """The payload by its media type: JSON as a value, `text/…` as a string, else bytes; None without data."""
        if not self.bytes:
            return None
        if is_json(self.datacontenttype):
            return self.json()
        return self.text() if (self.datacontenttype or "").lower().startswith("text/") else self.bytes

    def json(self) -> Any:
        """Parses the payload as JSON. If it is not JSON, the event is rejected."""
        try:
            return json.loads(self.bytes)
        except ValueError as error:
            raise Reject(f"JSON: {error}") from None

    def text(self) -> str:
        """Returns the payload as text. If it is not UTF-8, the event is rejected."""
        try:
            return self.bytes.decode()
        except UnicodeDecodeError as error:
            raise Reject(f"the data is not UTF-8: {error}") from None


@dataclass
class Delivery:
    """Why the function runs: one event owed to it, and the number of the attempt."""

    #: The same on every attempt, so it can be an idempotency key for external systems.
    id: str
    #: Counted from 1.
    attempt: int
    #: Time limit of this attempt, in milliseconds from its start.
    deadline_ms: int
    #: True if this is a stored event that is replayed.
    replay: bool
    #: The trigger (an entry of the function's `on:`) that matched.
    trigger: str


def is_json(media_type: Optional[str]) -> bool:
    essence = (media_type or "").split(";")[0].strip().lower()
    return essence.endswith(("/json", "+json"))


def encode(data: Any, media_type: Optional[str]) -> Tuple[bytes, Optional[str]]:
    """Returns the bytes of the data to publish, and its media type."""
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data), media_type or "application/octet-stream"
    if isinstance(data, str) and media_type and not is_json(media_type):
        return data.encode(), media_type
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode(), media_type or "application/json"
