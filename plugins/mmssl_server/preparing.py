"""From what a client sends to what an encoder takes, in a few threads beside the one that answers.

A client names no path: words are words, and files are bytes.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, final

from mmssl_server.answering import Part, Prepared, Stored
from mmssl_server.library import Library
from mmssl_server.limits import Limits, check_upload
from mmssl_server.refusals import LOG, Refusal
from mmssl_server.schemas import NewItem, TermIn
from multimodal_ssl import InputError, Inputs, Preview
from multimodal_ssl.errors import nearest

THREADS = 2  # which is also how many uploads are decoded at a time, whatever that takes of memory


class Ready(NamedTuple):
    """An item to add: what its encoder takes, and what a person sees of it."""

    inputs: Inputs
    preview: Preview


@final
class Preparer:
    """Loads and prepares items for the encoders of a library."""

    def __init__(self, library: Library, limits: Limits) -> None:
        self._binder, self._limits = library.binder, limits
        self._pool = ThreadPoolExecutor(THREADS, "preparing")
        # A tokenizer of Hugging Face panics if two threads have it.
        self._locks = {name: threading.Lock() for name in library.binder.encoders}

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    async def parts(self, terms: list[TermIn], files: Mapping[str, bytes]) -> list[Part]:
        """Return the parts of a query."""
        if len(terms) > self._limits.terms:
            raise Refusal(422, f"terms: {len(terms)} are too many: at most {self._limits.terms} are taken")
        for place, term in enumerate(terms):
            if sum(one is not None for one in (term.text, term.key, term.upload)) != 1:
                raise Refusal(422, f"terms.{place}: expected exactly one of text, key and upload")

        def prepare() -> list[Part]:
            return [self._part(place, term, files) for place, term in enumerate(terms)]

        if all(term.key is not None for term in terms):
            return prepare()
        return await asyncio.get_running_loop().run_in_executor(self._pool, prepare)

    async def items(self, items: list[NewItem], files: Mapping[str, bytes]) -> list[Ready]:
        """Return what there is to add."""
        for place, item in enumerate(items):
            if (item.text is None) == (item.upload is None):
                raise Refusal(422, f"items.{place}: expected exactly one of text and upload")

        def prepare() -> list[Ready]:
            return [self._ready(place, item, files) for place, item in enumerate(items)]

        return await asyncio.get_running_loop().run_in_executor(self._pool, prepare)

    async def upload(self, by: str, data: bytes, what: str) -> Prepared:
        """Return the bytes of a file as prepared."""

        def prepare() -> Prepared:
            return Prepared(self._prepare(by, self._load(by, data, what), what))

        return await asyncio.get_running_loop().run_in_executor(self._pool, prepare)

    def _part(self, place: int, term: TermIn, files: Mapping[str, bytes]) -> Part:
        if term.key is not None:
            return Part(term.modality or term.by, Stored(term.key), term.weight)
        what = f"terms.{place}"
        raw = self._load(term.by, _given(term, files, what), what)
        return Part(term.by, Prepared(self._prepare(term.by, raw, what)), term.weight)

    def _ready(self, place: int, item: NewItem, files: Mapping[str, bytes]) -> Ready:
        what = f"items.{place}"
        raw = self._load(item.modality, _given(item, files, what), what)
        return Ready(self._prepare(item.modality, raw, what), self._binder.modalities[item.modality].preview(raw))

    def _load(self, name: str, given: str | bytes, what: str) -> Any:
        """Return a raw item; a string is one only of a modality whose raw items are strings, and is never a path."""
        if name not in self._binder.encoders:
            raise Refusal(422, f"{what}: there is no encoder for {name!r}: {nearest(name, self._binder.encoders)}")
        modality = self._binder.modalities[name]
        if isinstance(given, str) and modality.type is not str:
            raise Refusal(422, f"{what}: {name} is no text: send a file in a field of the form, and its name as upload")
        if isinstance(given, bytes):
            check_upload(modality.name, given, self._limits)
        try:
            return modality.load(given)
        except Exception as error:  # decoders fail in many ways on what is broken
            LOG.info("%s can't be read as %s: %r", what, name, error)
            raise Refusal(422, f"{what}: can't be read as {modality.name}: {error}") from error

    def _prepare(self, name: str, raw: Any, what: str) -> Inputs:
        with self._locks[name]:
            try:
                return self._binder.prepare(name, raw)
            except InputError as error:
                raise Refusal(422, f"{what}: {error.__cause__ or error}") from error


def _given(one: TermIn | NewItem, files: Mapping[str, bytes], what: str) -> str | bytes:
    if one.text is not None:
        return one.text
    assert one.upload is not None
    if one.upload not in files:
        raise Refusal(422, f"{what}: the form has no file {one.upload!r}: {nearest(one.upload, files)}")
    return files[one.upload]
