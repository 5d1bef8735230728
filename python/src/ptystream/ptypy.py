"""ptystream's files in ptypy: `PtystreamScan`.

Importing this module imports ptypy and registers the class with it::

    import ptystream.ptypy
    p.scans.S.data.name = "PtystreamScan"
    p.scans.S.data.dfile = "scan.ptyd"
"""

from __future__ import annotations

import time
from typing import Any, Tuple

import h5py

from ptypy.core.data import PtydScan  # type: ignore[import-not-found]
from ptypy.experiment import register  # type: ignore[import-not-found]


@register()
class PtystreamScan(PtydScan):
    """Follows a file that ptystream is still writing.

    What it adds to `PtydScan`: it knows from the file whether the scan goes on, has ended or was
    aborted, so it neither waits for frames that never come nor stops too early; it sleeps between two
    looks; it ends with an error if another scan takes the file's place.

    Defaults:

    [name]
    default = PtystreamScan
    type = str
    help =

    [poll]
    default = 0.2
    type = float
    help = Seconds between two looks at the file

    """

    def __init__(self, pars: Any = None, **kwargs: Any) -> None:
        super().__init__(pars, **kwargs)
        self._run: Any = None
        self._looked = 0.0

    def check(self, frames: Any = None, start: Any = None) -> Tuple[int, int]:
        """Returns how many frames there are from `start` on, and whether they are the last."""
        poll = float(getattr(self.info, "poll", 0.2) or 0.2)
        self._sleep(self._looked + poll - time.monotonic())
        self._looked = time.monotonic()
        # The state first: what is there when it says complete is all.
        ended = self._ended()
        accessible, _ = super().check(frames, start)
        wanted = frames if frames is not None else accessible
        return accessible, int(ended and accessible <= wanted and not self._more(accessible, start))

    def _sleep(self, seconds: float) -> None:
        if seconds > 0:
            time.sleep(seconds)

    def _rows(self) -> int:
        with h5py.File(self.source, "r") as file:
            chunks = [file["chunks"].get(name) for name in file["chunks"]]
            return sum(len(chunk["data"]) for chunk in chunks if chunk is not None)

    def _more(self, accessible: int, start: Any) -> bool:
        return self._rows() > (start or 0) + accessible

    def _ended(self) -> bool:
        try:
            with h5py.File(self.source, "r") as file:
                record = file.get("ptystream")
                if record is None:
                    return True
                run, state = record.attrs.get("run_id"), record.attrs.get("state")
        except OSError:
            return False
        if self._run is not None and run != self._run:
            raise RuntimeError(f"{self.source}: another scan has taken its place")
        self._run = run
        return state in ("complete", "aborted")
