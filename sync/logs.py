"""What is logged, and what never is: no payloads, no headers, no values that an exception carries."""

import asyncio
import logging
import sys
import traceback
from collections.abc import MutableMapping
from types import TracebackType
from typing import Any, Literal

import structlog

log = structlog.get_logger("sync.logs")

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


def configure(log_format: Literal["console", "json"], level: str) -> None:
    """Set up logging for the whole process, to standard error."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _frames_only,
    ]
    last = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for noisy in ("httpx", "httpcore", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


def escaped(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an error that nobody waited for. asyncio's own words show the values at hand, so they stay out."""
    del loop
    kinds = sorted(f"{name}: {type(value).__qualname__}" for name, value in context.items() if name != "message")
    log.error("an error was left over in the event loop", about=", ".join(kinds), exc_info=context.get("exception"))


def _frames_only(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Render an exception as its class and where it came from. Its message may quote a visitor, so it stays out."""
    found = event.pop("exc_info", None)
    info = sys.exc_info() if found is True else found
    if isinstance(info, BaseException):
        info = (type(info), info, info.__traceback__)
    if info and info[0] is not None:
        frames = "".join(traceback.format_tb(info[2]))
        event["error"] = f"{info[0].__module__}.{info[0].__qualname__}"
        event["at"] = frames
    return event
