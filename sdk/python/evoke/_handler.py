"""The component's export: calls the function, and converts its result."""

import gc
import inspect
import linecache
import sys
import traceback
from types import ModuleType, SimpleNamespace
from typing import Any, Callable, List

from componentize_py_types import Err
from wit_world.imports.evoke_function_types_0_1_0 import Failure_Reject, Failure_Retry
from wit_world.imports.evoke_function_types_0_1_0 import Retry as WitRetry

from . import _publish as publish
from . import log
from ._event import Delivery, Event
from ._failure import Reject, Retry


def make(function: ModuleType) -> type:
    """Returns the class to export, which calls `handle` of the module. Called at build time: all that this module has
    loaded and computed is in memory when an attempt starts."""
    handle = getattr(function, "handle", None)
    if not callable(handle):
        sys.exit(f"{function.__name__}.py has no function: write `def handle(event): …`")
    with_delivery = len(inspect.signature(handle).parameters) > 1
    _keep_sources()

    class Handler:
        def handle(self, event: Any, delivery: Any) -> None:
            _run(handle, with_delivery, event, delivery)

    _warm_up()
    gc.collect()
    gc.freeze()
    return Handler


def _run(handle: Callable[..., None], with_delivery: bool, event: Any, delivery: Any) -> None:
    _start(delivery)
    try:
        received = Event(
            event.id, event.source, event.type, event.subject, event.time, event.datacontenttype, event.dataschema,
            dict(event.extensions), event.data,
        )  # fmt: skip
        if with_delivery:
            handle(received, Delivery(**vars(delivery)))
        else:
            handle(received)
    except Reject as error:
        raise Err(Failure_Reject(str(error))) from None
    except Retry as error:
        after_ms = None if error.after_ms is None else max(0, round(error.after_ms))
        raise Err(Failure_Retry(WitRetry(str(error), after_ms))) from None
    except Exception as error:
        raise Err(Failure_Retry(WitRetry(_report(error), None))) from None


def _start(delivery: Any) -> None:
    http = sys.modules.get("evoke.http")
    if http:
        http._delivery = delivery.id
    # The state of the generator at build time is the same in every attempt.
    random = sys.modules.get("random")
    if random:
        random.seed()


def _keep_sources() -> None:
    """Loads the source lines for tracebacks: a component has no files."""
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file and file.endswith(".py") and not file.startswith(sys.prefix):
            linecache.getlines(file)
    linecache.checkcache = lambda filename=None: None


def _warm_up() -> None:
    """Runs the common code of attempts before the first attempt, often enough that Python specializes it: an attempt would
    write the counters for this, and the host then clears each memory page that the attempt wrote."""
    event = SimpleNamespace(
        id="1", source="/a", type="a", subject=None, time=None, datacontenttype="application/json", dataschema=None,
        extensions=[("a", "a")], data=b'{"a": [1, 2.5, "x", null]}',
    )  # fmt: skip
    delivery = SimpleNamespace(id="1", attempt=1, deadline_ms=1, replay=False, trigger="on[0]")

    def handle(event: Event, _: Delivery) -> None:
        log.info(f"{event.type} {event.data}")
        publish.publish("a", event.json(), subject=event.id)

    # The build has no host.
    kept = log.host.log, publish.bus.publish
    log.host.log, publish.bus.publish = lambda *_: None, lambda draft: draft.type
    try:
        for _ in range(100):
            _run(handle, True, event, delivery)
    finally:
        log.host.log, publish.bus.publish = kept
    try:
        raise ValueError("")
    except ValueError as error:
        _lines(error)


def _report(error: BaseException) -> str:
    """Logs the traceback, and returns the message of the outcome."""
    log.error("".join(_lines(error)).rstrip())
    frames = _own_frames(traceback.extract_tb(error.__traceback__))
    text = "".join(traceback.format_exception_only(type(error), error)).strip()
    return f"{text}, at {frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name}" if frames else text


def _lines(error: BaseException) -> List[str]:
    trace = traceback.TracebackException.from_exception(error)
    part = trace
    while part:
        part.stack = traceback.StackSummary.from_list(_own_frames(part.stack))
        part = part.__cause__ or part.__context__
    return list(trace.format())


def _own_frames(frames: Any) -> List[traceback.FrameSummary]:
    """Leaves the SDK out, and shortens the names of files, which begin with a folder that only the build has."""
    kept = [frame for frame in frames if "/evoke/_" not in frame.filename]
    return [
        traceback.FrameSummary(
            _short(frame.filename), frame.lineno, frame.name, lookup_line=False, line=frame.line or None
        )
        for frame in kept
    ]


def _short(filename: str) -> str:
    parts = filename.lstrip("/").split("/")
    return "/".join(parts[1:]) if filename.startswith("/") and parts[0].isdigit() else filename
