"""Micro-batching: what is asked at about the same time is answered together, by one thread that runs torch and FAISS.

While the thread answers, requests gather; when it is free it takes them all. So nobody waits for a batch to fill but
for requests that are on their way already, and for these no longer than a few milliseconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, NamedTuple, TypeVar, final

from mmssl_server.limits import Limits
from mmssl_server.metrics import Metrics
from mmssl_server.refusals import LOG, Refusal

Q = TypeVar("Q")
A = TypeVar("A")


class _Waiting(NamedTuple, Generic[Q, A]):
    query: Q
    answer: asyncio.Future[A]


@final
class Batcher(Generic[Q, A]):
    """Answers queries in batches.

    Args:
        answer: queries -> an answer, or the exception that there is in its place, for each of them. Runs in the thread.
        start: what the thread does first.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Q]], Sequence[A | Exception]],
        *,
        limits: Limits,
        metrics: Metrics,
        start: Callable[[], object],
    ) -> None:
        self._answer, self._limits, self._metrics = answer, limits, metrics
        self._admitted = self._coming = 0
        self._queue: asyncio.Queue[_Waiting[Q, A]] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, "answering", initializer=start)

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Let a request in for this block; refuse it if as many as may be are in."""
        if self._admitted >= self._limits.queue:
            raise Refusal(503, f"{self._admitted} requests wait already: try again in a second", {"Retry-After": "1"})
        self._admitted += 1
        self._metrics.queue.set(self._admitted)
        try:
            yield
        finally:
            self._admitted -= 1
            self._metrics.queue.set(self._admitted)

    @contextmanager
    def coming(self) -> Iterator[None]:
        """Tell of a query that is being read and prepared in this block."""
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1

    async def ask(self, query: Q) -> A:
        """Return the answer to a query."""
        answer: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait(_Waiting(query, answer))
        return await answer

    async def run(self) -> None:
        """Answer until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            # Who has waited for too long is gone.
            batch = [one for one in await self._gathered() if not one.answer.done()]
            if not batch:
                continue
            self._metrics.batches.observe(len(batch))
            try:
                answers = await loop.run_in_executor(self._thread, self._answer, [one.query for one in batch])
            except Exception as error:  # noqa: BLE001 - these requests fail, the server lives
                LOG.exception("a batch failed")
                answers = [error] * len(batch)
            for one, answer in zip(batch, answers, strict=True):
                if one.answer.done():
                    continue
                if isinstance(answer, Exception):
                    one.answer.set_exception(answer)
                else:
                    one.answer.set_result(answer)

    def close(self) -> None:
        """End the thread when it has answered."""
        self._thread.shutdown()

    async def _gathered(self) -> list[_Waiting[Q, A]]:
        batch = [await self._queue.get()]
        end = asyncio.get_running_loop().time() + self._limits.wait
        while len(batch) < self._limits.batch:
            if self._queue.empty():
                left = end - asyncio.get_running_loop().time()
                if not self._coming or left <= 0:
                    break
                try:
                    batch.append(await asyncio.wait_for(self._queue.get(), left))
                except TimeoutError:
                    break
            else:
                batch.append(self._queue.get_nowait())
        return batch
