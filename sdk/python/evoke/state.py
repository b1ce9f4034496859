"""State of a function, as JSON values by key. The manifest grants it with `allow: { state: true }`.

An attempt reads its own writes; they are committed if it succeeds and discarded if it fails. If another attempt changed a
value that this attempt read, this attempt runs again. So counting needs no lock:

    from evoke import state

    seen = state.increment("seen")

`shared` is the bucket of the functions of the app. Each of them needs the grant `allow: { state: { shared: true } }`.
"""

import json
from typing import Any, Callable, List, Optional

from componentize_py_types import Err
from wit_world.imports import wasi_keyvalue_atomics_0_2_0_draft as atomics
from wit_world.imports import wasi_keyvalue_store_0_2_0_draft as store

from ._failure import Reject


class StateError(Exception):
    """An operation was refused, for example because of a quota, or the store failed."""


class State:
    """A bucket of values by key."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._bucket: Optional[store.Bucket] = None

    def _call(self, operation: Callable[[store.Bucket], Any]) -> Any:
        try:
            # Opened on first use: at build time, when this module is loaded, there is no state.
            if self._bucket is None:
                self._bucket = store.open(self._name)
            return operation(self._bucket)
        except Err as error:
            if isinstance(error.value, store.Error_Other):
                raise StateError(f"state: {error.value.value}") from None
            raise Reject(
                "this state is not granted (allow: { state: true }, or { state: { shared: true } } for state.shared)"
            ) from None

    def get(self, key: str, default: Any = None) -> Any:
        """Returns the value at `key`, or the default."""
        value = self.get_bytes(key)
        if value is None:
            return default
        try:
            return json.loads(value)
        except ValueError as error:
            raise Reject(f"the value at {key} is not JSON: {error}") from None

    def set(self, key: str, value: Any) -> None:
        """Creates or replaces the value at `key`."""
        self.set_bytes(key, json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())

    def update(self, key: str, change: Callable[[Any], Any], default: Any = None) -> Any:
        """Replaces the value at `key` by the result of `change`, which receives the value or the default. Returns the new
        value."""
        value = change(self.get(key, default))
        self.set(key, value)
        return value

    def delete(self, key: str) -> None:
        """Removes `key`. A missing key is not an error."""
        self._call(lambda bucket: bucket.delete(key))

    def exists(self, key: str) -> bool:
        """Returns true if `key` exists."""
        return self._call(lambda bucket: bucket.exists(key))

    def increment(self, key: str, delta: int = 1) -> int:
        """Adds `delta`, which is not negative, to the number at `key` (0 if there is none), and returns the sum."""
        return self._call(lambda bucket: atomics.increment(bucket, key, delta))

    def keys(self) -> List[str]:
        """Returns all keys. If another attempt adds or removes any key meanwhile, this attempt runs again."""
        keys, cursor = [], None
        while True:
            page = self._call(lambda bucket: bucket.list_keys(cursor))
            keys += page.keys
            cursor = page.cursor
            if cursor is None:
                return keys

    def get_bytes(self, key: str) -> Optional[bytes]:
        """Returns the bytes at `key`, which need not be JSON."""
        return self._call(lambda bucket: bucket.get(key))

    def set_bytes(self, key: str, value: bytes) -> None:
        """Stores bytes that need not be JSON."""
        self._call(lambda bucket: bucket.set(key, bytes(value)))


_own = State("")
#: The bucket shared by the functions of the app.
shared = State("app")

get = _own.get
set = _own.set
update = _own.update
delete = _own.delete
exists = _own.exists
increment = _own.increment
keys = _own.keys
get_bytes = _own.get_bytes
set_bytes = _own.set_bytes
