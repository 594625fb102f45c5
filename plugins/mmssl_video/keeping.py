"""Windows that were decoded before, on the disk: a window is decoded once, not at every visit."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from mmssl_video.container import Media, MediaError, read_lazy
from mmssl_video.decoding import Decoded, Window, decode
from multimodal_ssl import InputError
from multimodal_ssl.digests import item_key
from multimodal_ssl.files import replacing

FORM = 1  # to be raised when `decode` makes something else of the same window


def make_folder(folder: Path) -> None:
    """Make the folder of what is kept; raise InputError if it can't be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
        why = "" if writable else "it may not be written to"
    except OSError as error:
        why = error.strerror or str(error)
    if why:
        raise InputError(f"decoded windows can't be kept in {folder} ({why}): give another folder with keep: FOLDER")


def decode_once(media: Media, window: Window, folder: Path) -> Decoded:
    """Return what `decode` does: from the folder if it is there, else it is put there.

    It is kept by what the file holds (of a path: by its size and the time of its last change) and by the window. What
    could not be decoded is not kept. Processes may share the folder. Raises OSError where it can't be written to.
    """
    media = read_lazy(media)
    name = hashlib.blake2b(repr((FORM, item_key(media, "video"), tuple(window))).encode(), digest_size=16).hexdigest()
    path = folder / name[:2] / f"{name}.npz"
    if (found := _read(path)) is not None:
        return found
    decoded = decode(media, window)
    if not any(isinstance(one, MediaError) for one in decoded):
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **_arrays(decoded))
    return decoded


def _arrays(decoded: Decoded) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if isinstance(decoded.pictures, np.ndarray):
        found["pictures"] = decoded.pictures
    if isinstance(decoded.sound, bytes):
        found["sound"] = np.frombuffer(decoded.sound, np.uint8)
    return found


def _read(path: Path) -> Decoded | None:
    """Return what is kept; None where nothing is, or what was cut short: its checksum tells."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            sound = kept["sound"].tobytes() if "sound" in kept else None
            return Decoded(kept.get("pictures"), sound)
    except FileNotFoundError:
        return None
    except (zipfile.BadZipFile, ValueError, EOFError):
        return None
