"""The model hub: whether it can be reached is asked once, not by each file again and again."""

from __future__ import annotations

import logging
import math
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from huggingface_hub import constants, get_session
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

PATIENCE = 5.0  # seconds, for an answer of any kind
TRIES = 2
REMEMBERED = 60.0  # seconds
_FAILED: Any = HfHubHTTPError.__bases__[0]  # the root of httpx's errors, whichever httpx the hub's library has
_told: dict[str, tuple[float, str]] = {}  # of each endpoint when it was asked, and what came of it


@contextmanager
def hub_or_cache(*, needed: bool) -> Iterator[None]:
    """Let what is read inside come from the hub's cache alone while the hub can't be reached.

    The hub's library would ask for each file six times, wait longer each time and say so in two lines: a minute or
    more. Raises ConnectionError for a file that the cache does not have.

    Args:
        needed: whether what is read may have to come from the hub; if not, nobody is asked.
    """
    # A proxy, HF_ENDPOINT and a client of the user's own are respected: it is the library's client that asks.
    trouble = _trouble(constants.ENDPOINT) if needed and not _offline() else ""
    if not trouble:
        yield
        return
    constants.HF_HUB_OFFLINE = True  # the one switch that transformers, open_clip and timm all heed
    logging.root.addFilter(_is_no_error)
    try:
        yield
    except (OSError, RuntimeError) as error:
        lacking = any(isinstance(one, LocalEntryNotFoundError | OfflineModeIsEnabled) for one in _causes(error))
        if not (lacking or isinstance(error, OSError)):
            raise
        more = "its cache on this machine lacks a file" if lacking else textwrap.shorten(str(error), 150)
        raise ConnectionError(f"the model hub {constants.ENDPOINT} can't be reached ({trouble}), and {more}") from error
    finally:
        logging.root.removeFilter(_is_no_error)
        constants.HF_HUB_OFFLINE = False


def _offline() -> bool:
    return constants.HF_HUB_OFFLINE


def _is_no_error(record: logging.LogRecord) -> bool:
    """Tell whether to log a record: open_clip logs errors, and raises them too."""
    return record.levelno < logging.ERROR


def _trouble(endpoint: str) -> str:
    """Return why the hub can't be reached, or could not just now; nothing if it answers, whatever it says."""
    moment, trouble = _told.get(endpoint, (-math.inf, ""))
    if time.monotonic() - moment > REMEMBERED:
        trouble = _ask(endpoint)
        _told[endpoint] = time.monotonic(), trouble
    return trouble


def _ask(endpoint: str) -> str:
    trouble = ""
    for _ in range(TRIES):
        try:
            get_session().head(endpoint, timeout=PATIENCE, follow_redirects=False)
        except _FAILED as error:
            trouble = str(error) or type(error).__name__
        else:
            return ""
    return trouble


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
