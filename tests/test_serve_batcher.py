"""The queue before a tower: order, turns, bounds, and what becomes of items that nobody waits for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("uvicorn", reason="needs the extra serve")
pytest.importorskip("starlette", reason="needs the extra serve")

from sigrun.errors import SigrunError, TextError
from sigrun.serve.batcher import Batcher
from sigrun.serve.errors import ApiError


class Slow:
    """A tower that computes when it is let."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)

    def __call__(self, items: Sequence[int]) -> list[int | SigrunError]:
        self.batches.append(list(items))
        self.begun.release()
        assert self.go.acquire(timeout=20)
        return [item * 10 for item in items]

    async def next(self) -> None:
        """Wait until a batch has begun."""
        assert await asyncio.to_thread(self.begun.acquire, timeout=20)


@given(st.lists(st.lists(st.integers(), max_size=12), max_size=12), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_every_request_gets_its_own_results_in_order(requests: list[list[int]], batch: int) -> None:
    sizes: list[int] = []

    async def run() -> list[Any]:
        batcher: Batcher[int, int] = Batcher(
            "image", lambda items: [-item for item in items], batch=batch, queue=1000,
            observe=lambda count, seconds: sizes.append(count),
        )  # fmt: skip
        try:
            return await asyncio.gather(*(batcher.submit(items) for items in requests))
        finally:
            await asyncio.to_thread(batcher.close, 10)

    assert asyncio.run(run()) == [[-item for item in items] for items in requests]
    assert sum(sizes) == sum(map(len, requests))
    assert max(sizes, default=0) <= batch


def test_requests_take_turns() -> None:
    async def run() -> None:
        slow = Slow()
        batcher: Batcher[int, int] = Batcher("image", slow, batch=4, queue=100)
        first = asyncio.create_task(batcher.submit([0]))
        await slow.next()
        large = asyncio.create_task(batcher.submit(list(range(1, 7))))
        await asyncio.sleep(0)
        small = asyncio.create_task(batcher.submit([100, 101]))
        await asyncio.sleep(0)
        slow.go.release(10)
        assert await first == [0]
        assert await small == [1000, 1010]
        assert await large == [10, 20, 30, 40, 50, 60]
        assert slow.batches == [[0], [1, 100, 2, 101], [3, 4, 5, 6]]
        batcher.close(10)

    asyncio.run(run())


def test_a_full_queue_is_said_and_empties() -> None:
    async def run() -> None:
        slow = Slow()
        batcher: Batcher[int, int] = Batcher("text", slow, batch=1, queue=3)
        tasks = [asyncio.create_task(batcher.submit([number])) for number in range(3)]
        await slow.next()
        assert batcher.depth == 3
        with pytest.raises(ApiError, match="3 items wait for the text tower") as caught:
            await batcher.submit([4])
        assert caught.value.status == 429
        assert int(caught.value.headers["retry-after"]) >= 1
        slow.go.release(10)
        assert await asyncio.gather(*tasks) == [[0], [10], [20]]
        assert batcher.depth == 0
        assert await batcher.submit([5]) == [50]
        batcher.close(10)

    asyncio.run(run())


def test_what_nobody_waits_for_is_dropped() -> None:
    async def run() -> None:
        slow = Slow()
        batcher: Batcher[int, int] = Batcher("image", slow, batch=1, queue=100)
        kept = asyncio.create_task(batcher.submit([1]))
        await slow.next()
        gone = asyncio.create_task(batcher.submit([2, 3, 4]))
        last = asyncio.create_task(batcher.submit([5]))
        await asyncio.sleep(0.01)
        gone.cancel()
        await asyncio.sleep(0.01)
        assert batcher.depth == 2
        slow.go.release(10)
        assert await asyncio.gather(kept, last) == [[10], [50]]
        assert slow.batches == [[1], [5]]
        batcher.close(10)

    asyncio.run(run())


def test_an_item_that_fails_fails_alone_and_a_tower_that_fails_fails_its_batch() -> None:
    def run_batch(items: Sequence[int]) -> list[int | SigrunError]:
        if 13 in items:
            raise ZeroDivisionError
        return [TextError("odd") if item % 2 else item for item in items]

    async def run() -> None:
        batcher: Batcher[int, int] = Batcher("text", run_batch, batch=8, queue=100)
        first, second = await batcher.submit([2, 3])
        assert (first, str(second)) == (2, "odd")
        with pytest.raises(ZeroDivisionError):
            await batcher.submit([13])
        assert await batcher.submit([4]) == [4]
        batcher.close(10)

    asyncio.run(run())


def test_a_batch_waits_for_more_where_that_pays() -> None:
    async def run() -> None:
        slow = Slow()
        slow.go.release(10)
        batcher: Batcher[int, int] = Batcher("image", slow, batch=3, queue=100, wait=lambda: 20.0)
        tasks = [asyncio.create_task(batcher.submit([number])) for number in range(3)]
        assert await asyncio.gather(*tasks) == [[0], [10], [20]]
        assert slow.batches == [[0, 1, 2]], "full, long before the 20 s are over"
        batcher.close(10)

    asyncio.run(run())


def test_a_batcher_that_closes_finishes_what_it_took() -> None:
    async def run() -> None:
        slow = Slow()
        batcher: Batcher[int, int] = Batcher("image", slow, batch=1, queue=100)
        tasks = [asyncio.create_task(batcher.submit([number])) for number in range(4)]
        await slow.next()
        closing = asyncio.create_task(asyncio.to_thread(batcher.close, 20))
        await asyncio.sleep(0.05)
        with pytest.raises(ApiError, match="stopping") as caught:
            await batcher.submit([9])
        assert caught.value.status == 503
        with pytest.raises(ApiError, match="stopping"):
            await batcher.do(lambda: 1)
        slow.go.release(10)
        await closing
        assert await asyncio.gather(*tasks) == [[0], [10], [20], [30]]

    asyncio.run(run())


def test_something_is_done_between_two_batches() -> None:
    async def run() -> None:
        batcher: Batcher[int, int] = Batcher("image", list, batch=1, queue=100)
        assert await batcher.do(threading.get_ident) != threading.get_ident()
        with pytest.raises(ValueError, match="no"):
            await batcher.do(lambda: int("no"))
        batcher.close(10)

    asyncio.run(run())
