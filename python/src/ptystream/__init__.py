"""ptystream's Python side: sources of one's own, and finished or growing files.

==================  ==============================================================================
`Scan`              base class of a source, with the hooks of ptypy's `PtyScan`
`FrameError`        raise it in a hook where one frame is bad: it becomes a gap, the scan goes on
`Interrupted`       raise it in `check` where a scan was ended from outside
`from_ptyscan`      makes a source of a class or an object that has `PtyScan`'s hooks
`subscribe`         yields prepared frames of a file while it grows
`ptystream.push`    frames pushed from an acquisition script
`ptystream.ptypy`   `PtystreamScan` for ptypy; imports ptypy, so it is not imported here
==================  ==============================================================================
"""

from typing import TYPE_CHECKING, Any

from .adapter import from_ptyscan
from .params import Param, parse_defaults
from .scan import FrameError, Interrupted, Scan

if TYPE_CHECKING:
    from .follow import Aborted, Frame, subscribe

__all__ = [
    "Aborted",
    "Frame",
    "FrameError",
    "Interrupted",
    "Param",
    "Scan",
    "from_ptyscan",
    "parse_defaults",
    "subscribe",
]


def __getattr__(name: str) -> Any:
    # Sources do not need HDF5, and start faster without.
    if name in ("Aborted", "Frame", "subscribe"):
        from . import follow

        return getattr(follow, name)
    raise AttributeError(f"module 'ptystream' has no attribute '{name}'")
