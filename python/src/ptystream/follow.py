"""Prepared frames of a file, also while it grows."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any, Iterator, List, Optional, Set

import h5py
import numpy as np


class Aborted(RuntimeError):
    """The scan ended before its announced number of frames."""


@dataclass
class Frame:
    """One prepared frame."""

    #: Scan point.
    index: int
    #: (rows, cols)
    data: np.ndarray
    #: (rows, cols); 0 is bad. All 0: a gap.
    weight: np.ndarray
    #: (y, x) in metres, or None.
    position: Optional[np.ndarray]


def subscribe(path: Any, poll: float = 0.2, timeout: Optional[float] = None) -> Iterator[Frame]:
    """Yields the frames of a `.ptyd` as they become durable, each once, to the end of the scan.

    ``poll``: seconds between two looks. ``timeout``: seconds without anything new after which
    `TimeoutError` is raised; None: waits for ever. Follows files of `save = "link"`, and of
    `append` with `pipeline.live = true`.

    :raises Aborted: after the last frame of a scan that ended early.
    :raises RuntimeError: if another scan takes the file's place.
    """
    path = os.fspath(path)
    seen: Set[str] = set()
    run: Optional[str] = None
    last = time.monotonic()
    while True:
        state, reason, fresh = None, None, []
        try:
            with h5py.File(path, "r") as file:
                now, state, reason = _state(file)
                if run is not None and now is not None and now != run:
                    raise RuntimeError(f"{path}: another scan has taken its place")
                run = now or run
                fresh = _new(file, seen)
        except OSError:
            # Not there yet, or being replaced.
            pass
        for frame in fresh:
            last = time.monotonic()
            yield frame
        if not fresh:
            if state == "complete":
                return
            if state == "aborted":
                raise Aborted(f"{path}: {reason}")
            if timeout is not None and time.monotonic() - last > timeout:
                raise TimeoutError(f"{path}: nothing new for {timeout} s")
            time.sleep(poll)


def _state(file: h5py.File) -> Any:
    record = file.get("ptystream")
    if record is None:
        # Another program's file does not change.
        return None, "complete", None
    attrs = record.attrs
    return attrs.get("run_id"), attrs.get("state"), attrs.get("aborted")


def _new(file: h5py.File, seen: Set[str]) -> List[Frame]:
    found = []
    for name in sorted(file.get("chunks", {}), key=int):
        if name in seen:
            continue
        try:
            chunk = file["chunks"][name]
            data = chunk["data"][()]
        except (KeyError, OSError):
            # Chunks appear in order: what follows has to wait.
            break
        weights = chunk["weights"][()] if "weights" in chunk else np.ones(data.shape, bool)
        places = chunk.get("positions")
        places = places[()] if isinstance(places, h5py.Dataset) else [None] * len(data)
        indices = chunk["indices"][()] if "indices" in chunk else range(len(data))
        seen.add(name)
        for index, frame, weight, place in zip(indices, data, weights, places):
            found.append(Frame(int(index), frame, weight, place))
    return found
