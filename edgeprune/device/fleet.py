"""The same work on many boards at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Generic, TypeVar

from edgeprune.errors import DeviceError

Value = TypeVar("Value")
AT_ONCE = 4
"""Boards at work at once, unless told otherwise: few enough that the connections of this machine do not disturb."""


@dataclass(frozen=True)
class Answer(Generic[Value]):
    """What came of one board: a value, or the error that it ended with."""

    host: str
    value: Value | None
    error: DeviceError | None = None


def ask_boards(hosts: Sequence[str], work: Callable[[str], Value], at_once: int = AT_ONCE) -> Iterator[Answer[Value]]:
    """Do `work` for each board in threads, `at_once` of them at a time; gives the answers as they come.

    A board that fails is an answer; whatever else is raised ends it all, once those under way have ended.
    """
    with ThreadPoolExecutor(at_once) as pool:
        futures = {pool.submit(work, host): host for host in hosts}
        try:
            for future in as_completed(futures):
                error = future.exception()
                if error is None:
                    yield Answer(futures[future], future.result())
                elif isinstance(error, DeviceError):
                    yield Answer(futures[future], None, error)
                else:
                    raise error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
