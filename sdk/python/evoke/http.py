"""A small HTTP client. The function reaches only the origins that its manifest grants under `allow: http`; the host adds
the headers of the grant, such as credentials.

    from evoke import http

    rate = http.get("https://rates.example/today").ok().json()
    http.post("https://api.example/orders", json={"euro": rate["euro"]}).ok()

An attempt can run again after its request was received, so requests that are not safe carry the header `Idempotency-Key`.
Redirects are not followed.
"""

import json as _json
from typing import Any, Dict, List, Mapping, Optional, Tuple
from urllib.parse import urlsplit

from componentize_py_types import Err, Ok
from wit_world.imports import wasi_http_outgoing_handler_0_2_0 as outgoing_handler
from wit_world.imports import wasi_http_types_0_2_0 as types
from wit_world.imports import wasi_io_streams_0_2_0 as streams

from ._failure import Reject, Retry

BODY_BYTES_MAX = 8 * 1024 * 1024
_WRITE_BYTES_MAX = 4096
_READ_BYTES_MAX = 64 * 1024
_SAFE = ("GET", "HEAD", "OPTIONS", "TRACE")
_MESSAGES = {
    "HttpRequestDenied": "the request is not allowed",
    "DestinationIpProhibited": "the request is not allowed",
    "DnsTimeout": "the name was not resolved in time",
    "DnsError": "the name has no address",
    "ConnectionRefused": "the connection was refused",
    "ConnectionTimeout": "the connection was not made in time",
    "ConnectionReadTimeout": "the response paused for too long",
    "HttpResponseTimeout": "the response did not arrive in time",
    "HttpResponseIncomplete": "the connection ended before the response",
    "TlsCertificateError": "the certificate of the server is not trusted",
}
_delivery = ""
_keys = 0


class HttpError(Exception):
    """There is no response. `code` is the name of the error in wasi:http, such as `ConnectionRefused`."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class Response:
    """A response that was read to its end."""

    def __init__(self, status: int, headers: Dict[str, str], body: bytes) -> None:
        self.status = status
        #: By name in lower case.
        self.headers = headers
        self.body = body

    def ok(self) -> "Response":
        """Returns the response if its status is 2xx. Else raises `Reject` for a status from 300 to 499 that a repetition
        does not change, and `Retry` for all others, after the time that the response asks for."""
        if 200 <= self.status < 300:
            return self
        start = self.body[:200].decode(errors="replace")
        message = f"HTTP: the response has status {self.status}" + (f": {start}" if start else "")
        if self.status in (408, 425, 429) or self.status >= 500:
            after = self.headers.get("retry-after", "")
            raise Retry(message, after_ms=int(after) * 1000 if after.isdigit() else None)
        raise Reject(message)

    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return _json.loads(self.body)


def get(url: str, **options: Any) -> Response:
    return request("GET", url, **options)


def post(url: str, **options: Any) -> Response:
    return request("POST", url, **options)


def put(url: str, **options: Any) -> Response:
    return request("PUT", url, **options)


def patch(url: str, **options: Any) -> Response:
    return request("PATCH", url, **options)


def delete(url: str, **options: Any) -> Response:
    return request("DELETE", url, **options)


def request(
    method: str,
    url: str,
    *,
    headers: Optional[Mapping[str, str]] = None,
    body: bytes = b"",
    json: Any = None,
    timeout: Optional[float] = None,
    idempotency_key: Optional[str] = None,
    max_body: int = BODY_BYTES_MAX,
) -> Response:
    """Sends a request and reads the whole response. A response of any status is no error: see `Response.ok`.

    `timeout`, in seconds, limits the waits for the connection, for the head of the response, and for each further part.
    Without an `idempotency_key`, a request that is not safe has a key that is the same on every attempt; an empty one sends
    no key. Raises `HttpError` if there is no response.
    """
    method = method.upper()
    fields = {name.lower(): value for name, value in (headers or {}).items()}
    if json is not None:
        body = _json.dumps(json, ensure_ascii=False).encode()
        fields.setdefault("content-type", "application/json")
    if idempotency_key is None and method not in _SAFE and "idempotency-key" not in fields:
        idempotency_key = _next_key()
    if idempotency_key:
        fields["idempotency-key"] = idempotency_key
    if body or method not in ("GET", "HEAD"):
        fields.setdefault("content-length", str(len(body)))
    outgoing = _outgoing(method, url, [(name, value.encode()) for name, value in fields.items()])
    sink = outgoing.body()
    try:
        future = outgoing_handler.handle(outgoing, _options(timeout))
    except Err as error:
        raise _error(error.value) from None
    _write(sink, body)
    with future:
        with future.subscribe() as ready:
            ready.block()
        outcome = future.get()
        result = outcome.value if isinstance(outcome, Ok) else outcome
        if isinstance(result, Ok):
            result = result.value
        if isinstance(result, Err):
            raise _error(result.value)
    return _read(result, max_body)


def _next_key() -> str:
    global _keys
    _keys += 1
    return _delivery if _keys == 1 else f"{_delivery}-{_keys}"


def _outgoing(method: str, url: str, fields: List[Tuple[str, bytes]]) -> types.OutgoingRequest:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError(f"the URL {url} is not http://HOST… or https://HOST…")
    known = getattr(types, f"Method_{method.title()}", None)
    path = parts.path if parts.path.startswith("/") else f"/{parts.path}"
    try:
        outgoing = types.OutgoingRequest(types.Fields.from_list(fields))
        outgoing.set_method(known() if known and method != "OTHER" else types.Method_Other(method))
        outgoing.set_scheme(types.Scheme_Https() if parts.scheme == "https" else types.Scheme_Http())
        outgoing.set_authority(parts.netloc)
        outgoing.set_path_with_query(path + (f"?{parts.query}" if parts.query else ""))
    except Err:
        raise ValueError(f"the method, the URL or a header is not valid: {method} {url}") from None
    return outgoing


def _options(timeout: Optional[float]) -> Optional[types.RequestOptions]:
    if timeout is None:
        return None
    options, nanos = types.RequestOptions(), round(timeout * 1e9)
    options.set_connect_timeout(nanos)
    options.set_first_byte_timeout(nanos)
    options.set_between_bytes_timeout(nanos)
    return options


def _write(sink: types.OutgoingBody, body: bytes) -> None:
    # The peer may respond before it has read the body, so a failed write is no error: the response has the reason.
    try:
        if body:
            with sink.write() as stream:
                for start in range(0, len(body), _WRITE_BYTES_MAX):
                    stream.blocking_write_and_flush(body[start : start + _WRITE_BYTES_MAX])
        types.OutgoingBody.finish(sink, None)
    except Err:
        pass


def _read(response: types.IncomingResponse, max_body: int) -> Response:
    with response:
        status = response.status()
        with response.headers() as fields:
            headers: Dict[str, str] = {}
            for name, value in fields.entries():
                text = value.decode("latin-1")
                headers[name.lower()] = f"{headers[name.lower()]}, {text}" if name.lower() in headers else text
        body = bytearray()
        with response.consume() as incoming, incoming.stream() as stream:
            while True:
                try:
                    body += stream.blocking_read(_READ_BYTES_MAX)
                except Err as error:
                    if isinstance(error.value, streams.StreamError_Closed):
                        break
                    raise _error(types.http_error_code(error.value.value)) from None
                if len(body) > max_body:
                    raise HttpError(f"HTTP: the response has more than {max_body} bytes", "BodyTooLarge")
    return Response(status, headers, bytes(body))


def _error(code: Any) -> HttpError:
    name = type(code).__name__.replace("ErrorCode_", "") if code is not None else "InternalError"
    return HttpError(f"HTTP: {_MESSAGES.get(name, name)}", name)
