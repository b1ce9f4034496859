"""Log lines of a function. `print` and the module `logging` write log lines, too."""

import logging

from wit_world.imports import wasi_logging_logging_0_1_0_draft as host

_LEVELS = ((logging.ERROR, host.Level.ERROR), (logging.WARNING, host.Level.WARN), (logging.INFO, host.Level.INFO))


def debug(message: object) -> None:
    host.log(host.Level.DEBUG, "", str(message))


def info(message: object) -> None:
    host.log(host.Level.INFO, "", str(message))


def warning(message: object) -> None:
    host.log(host.Level.WARN, "", str(message))


def error(message: object) -> None:
    host.log(host.Level.ERROR, "", str(message))


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        level = next((level for least, level in _LEVELS if record.levelno >= least), host.Level.DEBUG)
        host.log(level, record.name, self.format(record))


logging.basicConfig(level=logging.DEBUG, format="%(message)s", handlers=[_Handler()])
