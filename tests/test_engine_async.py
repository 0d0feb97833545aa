"""An engine in asyncio: awaiting, cancelling, iterating at the consumer's pace."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest

from sigrun import Engine, PictureError, Siglip, SigrunError
from sigrun.engine import ROOM
from tests.engine_model import PATIENCE, SlowEngine, soon
from tests.picture_files import stored

GREY = np.full((40, 50, 3), 99, np.uint8)


async def eventually(loop_passes: int = 5) -> None:
    for _ in range(loop_passes):
        await asyncio.sleep(0.01)


def test_jobs_are_awaited_and_callbacks_come_in_the_loop(emoji_q4: Path) -> None:
    async def use() -> None:
        loop = asyncio.get_running_loop()
        with Engine(emoji_q4, call=loop.call_soon_threadsafe) as engine, Siglip.load(emoji_q4) as model:
            rows: list[int] = []

            def row(done: object) -> None:
                assert asyncio.get_running_loop() is loop
                rows.append(done.row)  # type: ignore[attr-defined]

            job = engine.images([GREY, stored()], on_row=row)
            labels, scores, count = await asyncio.gather(
                engine.label_set(["owl", "key"]), engine.classify(GREY, ["owl", "key"]), job
            )
            assert count == 2
            assert rows == [0, 1]
            assert scores == model.classify(GREY, labels)
            with pytest.raises(PictureError):
                await engine.classify(b"nothing", labels)

    asyncio.run(asyncio.wait_for(use(), PATIENCE))


def test_rows_come_in_order_with_their_errors(emoji_q4: Path) -> None:
    async def use() -> None:
        with Engine(emoji_q4) as engine:
            pictures = [GREY, b"no picture", stored()]
            found = [row async for row in engine.rows(pictures)]
            assert [row.row for row in found] == [0, 1, 2]
            assert [row.error is None for row in found] == [True, False, True]
            assert [row async for row in engine.rows([])] == []

    asyncio.run(asyncio.wait_for(use(), PATIENCE))


def test_computing_waits_for_who_iterates() -> None:
    async def use(engine: SlowEngine) -> None:
        engine.model.let(None)
        taken = 0
        async with contextlib.aclosing(engine.rows(itertools.count())) as rows:
            async for _ in rows:
                taken += 1
                await eventually()
                assert len(engine.model.log) <= taken + ROOM
                if taken == 3:
                    break
        await asyncio.to_thread(soon, lambda: engine.model.ended == 1)
        assert len(engine.model.log) <= taken + ROOM + 1

    with SlowEngine() as engine:
        asyncio.run(asyncio.wait_for(use(engine), PATIENCE))


def test_a_cancelled_task_cancels_its_job() -> None:
    async def use(engine: SlowEngine) -> None:
        job = engine.images(itertools.count(), on_row=lambda row: None)

        async def wait() -> int:
            return await job

        task = asyncio.create_task(wait())
        await eventually()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert job.cancelled()

        engine.model.let(None)
        rows = engine.rows(itertools.count())
        await anext(rows)

        async def iterate() -> None:
            async for _ in rows:
                await asyncio.sleep(60)

        task = asyncio.create_task(iterate())
        await eventually()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await rows.aclose()
        await asyncio.to_thread(soon, lambda: engine.model.ended == 2)

    with SlowEngine() as engine:
        asyncio.run(asyncio.wait_for(use(engine), PATIENCE))


def test_what_ends_a_run_ends_the_iteration() -> None:
    def pictures() -> Iterator[int]:
        yield 0
        raise OSError("the camera is gone")

    async def use(engine: SlowEngine) -> None:
        engine.model.let(None)
        seen = []
        with pytest.raises(OSError, match="the camera is gone"):
            async for row in engine.rows(pictures()):  # type: ignore[arg-type]
                seen.append(row.row)
        assert seen == [0]

        rows: AsyncIterator[object] = engine.rows(itertools.count())  # type: ignore[arg-type]
        await anext(rows)
        engine.close(wait=False)
        with pytest.raises(SigrunError, match="closed"):
            async for _ in rows:
                pass

    with SlowEngine() as engine:
        asyncio.run(asyncio.wait_for(use(engine), PATIENCE))


def test_two_loops_one_engine(emoji_q4: Path) -> None:
    with Engine(emoji_q4) as engine:
        for _ in range(2):
            assert len(asyncio.run(_texts(engine))) == 2


async def _texts(engine: Engine) -> object:
    return await engine.texts(["a", "b"])
