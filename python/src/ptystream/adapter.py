"""Loaders of ptypy as sources."""

from __future__ import annotations

from typing import Any, Callable, Sequence, Tuple

from .params import Param, nested
from .scan import Frames, Loaded, Scan


def from_ptyscan(target: Any) -> type:
    """Makes a source of what has `PtyScan`'s hooks: a class, a function that makes an object, or an
    object.

    ::

        # my_sources.py
        from ptypy.experiment.hdf5_loader import Hdf5Loader
        import ptystream
        Source = ptystream.from_ptyscan(Hdf5Loader)

    and in the configuration ``name = "my_sources:Source"``. A class is given the `[data]` block as its
    first argument, as ptypy does; its own defaults fill in the rest.
    """
    is_object = not isinstance(target, type) and hasattr(target, "load")

    class Adapted(Scan):
        def __init__(self, pars: Any = None, **kwargs: Any) -> None:
            super().__init__(pars, **kwargs)
            make: Callable[..., Any] = (lambda _pars: target) if is_object else target
            self.ptyscan = make(_as_ptypy(self.p))
            self.info: Any = getattr(self.ptyscan, "info", self.p)
            self.num_frames = getattr(self.ptyscan, "num_frames", None)

        def load_positions(self) -> Any:
            return self._call("load_positions", lambda: None)

        def load_weight(self) -> Any:
            return self._call("load_weight", lambda: None)

        def load_common(self) -> Any:
            return self._call("load_common", dict) or {}

        def check(self, frames: int, start: int) -> Tuple[int, Any]:
            hook = getattr(self.ptyscan, "check", None)
            if hook is None:
                return super().check(frames, start)
            accessible, end = hook(frames, start)
            return accessible, None if end is None else bool(end)

        def load(self, indices: Sequence[int]) -> Loaded:
            raw, positions, weights = self.ptyscan.load(indices)
            return raw, positions, weights

        def correct(self, raw: Frames, weights: Frames, common: Any) -> Tuple[Frames, Frames]:
            hook = getattr(self.ptyscan, "correct", None)
            return (raw, weights) if hook is None else hook(raw, weights, common)

        def _call(self, name: str, default: Callable[[], Any]) -> Any:
            hook = getattr(self.ptyscan, name, None)
            return default() if hook is None else hook()

    cls = target if isinstance(target, type) else type(target)
    Adapted.__name__ = Adapted.__qualname__ = getattr(cls, "__name__", "Adapted")
    Adapted.__module__ = getattr(target, "__module__", cls.__module__)
    Adapted.__doc__ = getattr(cls, "__doc__", None)
    return Adapted


def _as_ptypy(pars: Param) -> Any:
    """Makes ptypy's own `Param` of a tree where ptypy is installed."""
    try:
        from ptypy.utils import Param as PtypyParam  # type: ignore[import-not-found]
    except ImportError:
        return nested(pars)

    def made(value: Any) -> Any:
        if isinstance(value, dict):
            return PtypyParam({key: made(v) for key, v in value.items()})
        return value

    return made(pars)
