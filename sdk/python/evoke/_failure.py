"""Failures that a function raises to choose its outcome."""

from typing import Optional


class Retry(Exception):
    """A later attempt may succeed: retries by the function's retry policy, and not before `after_ms` milliseconds."""

    def __init__(self, message: str, *, after_ms: Optional[float] = None) -> None:
        super().__init__(message)
        self.after_ms = after_ms


class Reject(Exception):
    """No attempt can succeed: creates a dead letter with this message as its cause."""


class Refused(Reject):
    """An event may not be published: its type is not granted, it is too large, there are too many, or an attribute is
    not valid."""
