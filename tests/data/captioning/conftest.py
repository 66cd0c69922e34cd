"""Fixtures of the captioning tests: an endpoint on a stub server, a manual clock, and clips."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from videodit_data.captioning.captioner import Clip
from videodit_data.captioning.endpoint import Endpoint, EndpointConfig

from tests.data.captioning.stub import Stub, serving


class Time:
    """A clock that advances only in `sleep`."""

    def __init__(self) -> None:
        self.now, self.slept, self._lock = 1000.0, [], threading.Lock()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.now += seconds
            self.slept.append(seconds)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def stub() -> Iterator[Stub]:
    with serving() as stub:
        yield stub


@pytest.fixture
def endpoint(stub: Stub, time: Time) -> Callable[..., Endpoint]:
    """Return a function endpoint(**config) -> an `Endpoint` that calls the stub, and waits by the manual clock."""

    def make(**config: Any) -> Endpoint:
        quick = {"deadline_seconds": 5, "connect_seconds": 5, "attempts": 3}
        return Endpoint(EndpointConfig(stub.url, "eyes", **quick | config), clock=time, sleep=time.sleep)

    return make


@pytest.fixture
def clips() -> Callable[[int], list[Clip]]:
    """Return a function clips(count) -> clips of two frames that differ from each other."""

    def make(count: int) -> list[Clip]:
        shape = (2, 16, 16, 3)
        return [
            Clip(f"clip-{n}", f"{n:064d}", np.full(shape, 8 * n % 256, np.uint8), 2.0, 8.0, (f"known of {n}",))
            for n in range(count)
        ]

    return make
