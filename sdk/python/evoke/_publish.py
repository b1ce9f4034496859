"""Publishing events."""

from typing import Any, Mapping, Optional

from componentize_py_types import Err
from wit_world.imports import evoke_function_bus_0_1_0 as bus
from wit_world.imports.evoke_function_types_0_1_0 import Draft

from ._event import encode
from ._failure import Refused

_NO_DATA = object()


def publish(
    type: str,
    data: Any = _NO_DATA,
    *,
    subject: Optional[str] = None,
    id: Optional[str] = None,
    datacontenttype: Optional[str] = None,
    dataschema: Optional[str] = None,
    extensions: Optional[Mapping[str, str]] = None,
) -> str:
    """Publishes an event when this attempt succeeds, and returns the id that the event will have.

    The data is JSON, except bytes, and a string with a `datacontenttype` that is not JSON. Without an `id`, the event has
    the same id on every attempt. Raises `Refused` if the event may not be published.
    """
    content, media_type = (b"", datacontenttype) if data is _NO_DATA else encode(data, datacontenttype)
    attributes = [(name, str(value)) for name, value in (extensions or {}).items()]
    try:
        return bus.publish(Draft(type, subject, media_type, dataschema, attributes, content, id))
    except Err as error:
        raise Refused(f"publish refused: {error.value}") from None
