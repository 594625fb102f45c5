"""What all routes share: the library, the threads that work for it, and who may change it."""

from __future__ import annotations

import asyncio
import gc
import hmac
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TypeVar, final

import faiss
import torch
from fastapi import FastAPI, Request

from mmssl_server.answering import Answer, Query, answer
from mmssl_server.batching import Batcher
from mmssl_server.library import Library
from mmssl_server.limits import Limits
from mmssl_server.metrics import Metrics
from mmssl_server.preparing import Preparer
from mmssl_server.refusals import Refusal
from multimodal_ssl import Index

T = TypeVar("T")


@final
class Service:
    """Serves a library: one thread answers, one writes, and a few prepare what was sent.

    Args:
        token: of who may change the index; without one nobody may.
        threads: of torch and FAISS; None leaves it to them.
    """

    def __init__(self, library: Library, limits: Limits, *, token: str | None, threads: int | None) -> None:
        self.library, self.limits, self.metrics = library, limits, Metrics()
        self.threads = threads or torch.get_num_threads()
        self.preparer = Preparer(library, limits)
        self.batcher: Batcher[Query, Answer] = Batcher(
            partial(answer, library), limits=limits, metrics=self.metrics, start=partial(set_threads, self.threads)
        )
        self._token = token
        self._writing = ThreadPoolExecutor(1, "writing")

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Answer while this block lasts."""
        gc.collect()
        gc.freeze()  # or every full collection would look through the whole model, and all requests wait for it
        answering = asyncio.create_task(self.batcher.run())
        yield
        gc.unfreeze()
        answering.cancel()
        with suppress(asyncio.CancelledError):
            await answering
        self.batcher.close()
        self.preparer.close()
        self._writing.shutdown()
        self.library.close()

    async def write(self, change: Callable[[Index], T]) -> T:
        """Make a change of the index in the thread that writes."""
        return await asyncio.get_running_loop().run_in_executor(self._writing, self.library.change, change)

    def check_token(self, request: Request) -> None:
        """Refuse who may not change the index."""
        if self._token is None:
            raise Refusal(
                403, "this server changes nothing: start it with --token-file FILE, or MMSSL_TOKEN set, to allow it"
            )
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(given.encode("latin-1"), self._token.encode()):
            wanted = {"WWW-Authenticate": "Bearer"}
            raise Refusal(401, "expected the server's token as `Authorization: Bearer TOKEN`", wanted)


def set_threads(threads: int) -> None:
    """Set how many threads torch and FAISS use for what this thread asks of them."""
    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(threads)
