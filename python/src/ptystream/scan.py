"""The base class of sources."""

from __future__ import annotations

import os
import sys
from typing import Any, Dict, Optional, Sequence, Tuple

import numpy as np

from .params import Param, defaults_of

Frames = Dict[int, np.ndarray]
Loaded = Tuple[Frames, Dict[int, np.ndarray], Frames]


class FrameError(Exception):
    """One frame cannot be had. It becomes a gap with this text, and the scan goes on."""


class Interrupted(Exception):
    """Raise it in `check` where the scan was ended from outside after `frames` frames."""

    def __init__(self, frames: int, reason: str) -> None:
        super().__init__(reason)
        self.frames = frames


class _Default:
    """`cls.DEFAULT`: the parameters of the docstrings, a fresh tree each time."""

    def __get__(self, _obj: Any, cls: type) -> Param:
        return defaults_of(cls)


class Scan:
    """A scan: where raw frames and positions come from.

    Derive from it and give `load_positions` and `load`; the other hooks have defaults. They have the
    names and meanings of ptypy's `PtyScan`. Parameters stand in the docstring (see `ptystream.params`)
    and come as `self.p`, with those of ptypy's `scan.data` block beside them.

    A hook may set `self.info.energy` (keV), `distance` (m) and `psize` (m) in `__init__`: they count where
    the configuration does not give them.
    """

    DEFAULT = _Default()
    #: Number of scan points, if it is not that of the positions.
    num_frames: Optional[int] = None
    #: Whether frames come at their own time and can be had once only. Such a scan gives `frame_form`,
    #: and `load` gives positions; `check` counts all frames that have come.
    live = False

    def __init__(self, pars: Any = None, **kwargs: Any) -> None:
        self.p = type(self).DEFAULT
        self.p.update(pars)
        self.p.update(kwargs)
        #: What is known of the scan; changes of energy, distance and psize are taken over.
        self.info: Any = self.p

    def load_positions(self) -> Any:
        """Returns positions of all scan points, (n, 2), (y, x) in metres; None: `load` gives them."""
        return None

    def load_weight(self) -> Any:
        """Returns the mask of all frames, (rows, cols), 0 is bad; None: all are good."""
        return None

    def load_common(self) -> Any:
        """Returns whatever `correct` needs, such as a dictionary with `dark` and `flat`."""
        return {}

    def check(self, frames: int, start: int) -> Tuple[int, Optional[bool]]:
        """Returns how many frames can be had from `start` on, and whether those are the last.

        None in the place of the second: that follows from the number of frames.
        """
        if self.num_frames is None:
            return frames, None
        return max(0, min(frames, self.num_frames - start)), None

    def load(self, indices: Sequence[int]) -> Loaded:
        """Returns frames, positions and weights by index; the last two may be empty.

        Frames are 2-D arrays of one shape and type.
        """
        raise NotImplementedError("load(indices) has to return frames, positions and weights")

    def frame_form(self) -> Any:
        """Returns type and shape of the frames of a live scan, such as ("uint16", (512, 512))."""
        raise NotImplementedError("frame_form() has to tell type and shape of a live scan's frames")

    def correct(self, raw: Frames, weights: Frames, common: Any) -> Tuple[Frames, Frames]:
        """Changes frames and weights before they are prepared."""
        return raw, weights

    def identity(self) -> Sequence[Tuple[str, str]]:
        """Returns what makes this scan this scan, such as names and times of files.

        An unfinished file is taken up again only if it is the same; the default is the time at which
        the class's module was changed.
        """
        module = sys.modules.get(type(self).__module__)
        path = getattr(module, "__file__", None) or ""
        try:
            return [(path, str(os.stat(path).st_mtime_ns))]
        except OSError:
            return [(path, "absent")]
