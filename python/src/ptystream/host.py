"""Runs a source for the program: requests on stdin, answers on stdout.

A message is a length (4 bytes, little-endian), as many bytes of JSON, and then the bytes of the arrays
that the JSON names, one after the other. Whatever a hook prints goes to stderr.

====================  ======================================  ====================================
request               fields                                  answer
====================  ======================================  ====================================
describe              target                                  params
open                  target, data, given, base               recorded, num_frames, live
load_positions                                                array or null
load_weight                                                   array or null
check                 frames, start                           accessible, end
load                  indices                                 frames, positions, weights
identity                                                      pairs of texts
====================  ======================================  ====================================

An answer with ``error`` has its text, the traceback, and whether it is about one frame only.
"""

from __future__ import annotations

import importlib
import json
import os
import struct
import sys
import traceback
from typing import Any, BinaryIO, Dict, List, Optional, Sequence, Tuple

import numpy as np

from .params import Param, declared, nested
from .scan import FrameError, Interrupted

_RECORDED = ("energy", "distance", "psize")


class Host:
    """A source and what the program asks of it."""

    def __init__(self) -> None:
        self.scan: Any = None
        self.common: Optional[Any] = None

    def describe(self, target: str, **_: Any) -> Dict[str, Any]:
        return {"params": declared(_class_of(target))}

    def open(self, target: str, data: Dict[str, Any], given: Sequence[str], base: str) -> Dict[str, Any]:
        # Input paths refer to the folder of the configuration, and so do names of the user's own.
        os.chdir(base)
        cls = _class_of(target)
        pars = Param()
        # What nobody gave is the class's own default.
        known = {entry["name"] for entry in declared(cls)}
        for path, value in _leaves(nested(data)):
            if path in given or path not in known:
                pars.at(path, value)
        pars["name"] = getattr(cls, "__name__", target)
        before = {key: pars.get(key) for key in _RECORDED}
        self.scan = cls(pars)
        info = getattr(self.scan, "info", {})
        recorded = {}
        for key in _RECORDED:
            value = info.get(key) if hasattr(info, "get") else getattr(info, key, None)
            if key not in given and value is not None and not _same(value, before[key]):
                recorded[key] = [float(v) for v in np.atleast_1d(value)]
        answer = {"recorded": recorded, "num_frames": _count(getattr(self.scan, "num_frames", None))}
        if getattr(self.scan, "live", False):
            dtype, shape = self.scan.frame_form()
            answer["live"] = {"dtype": np.dtype(dtype).name, "shape": [int(n) for n in shape]}
        return answer

    def load_positions(self) -> Tuple[Dict[str, Any], List[np.ndarray]]:
        return _one(self.scan.load_positions())

    def load_weight(self) -> Tuple[Dict[str, Any], List[np.ndarray]]:
        return _one(self.scan.load_weight())

    def _common(self) -> Any:
        if self.common is None:
            self.common = self.scan.load_common()
        return self.common

    def check(self, frames: int, start: int) -> Dict[str, Any]:
        accessible, end = self.scan.check(frames, start)
        return {"accessible": int(accessible), "end": None if end is None else bool(end)}

    def load(self, indices: Sequence[int]) -> Tuple[Dict[str, Any], List[np.ndarray]]:
        raw, positions, weights = self.scan.load(list(indices))
        raw, weights = self.scan.correct(raw, weights or {}, self._common())
        positions, weights = positions or {}, weights or {}
        for index in indices:
            if index not in raw:
                raise FrameError(f"load returned no frame for scan point {index}")
        frames = [np.asarray(raw[index]) for index in indices]
        some = [np.asarray(weights[index]) for index in indices if index in weights]
        if some and len(some) != len(frames):
            raise ValueError(f"weights for {len(some)} of {len(frames)} frames; give all or none")
        places = [_place(positions[i]) if i in positions else None for i in indices]
        return {"frames": len(frames), "weights": len(some), "positions": places}, frames + some

    def identity(self) -> Dict[str, Any]:
        hook = getattr(self.scan, "identity", None)
        pairs = hook() if hook is not None else []
        return {"pairs": [[str(a), str(b)] for a, b in pairs]}


def _class_of(target: str) -> Any:
    module, _, name = target.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _leaves(tree: Dict[str, Any], place: str = "") -> List[Tuple[str, Any]]:
    found: List[Tuple[str, Any]] = []
    for key, value in tree.items():
        path = f"{place}.{key}" if place else key
        found += _leaves(value, path) if isinstance(value, dict) and value else [(path, value)]
    return found


def _same(a: Any, b: Any) -> bool:
    return b is not None and np.array_equal(np.asarray(a), np.asarray(b))


def _count(value: Any) -> Optional[int]:
    return None if value is None else int(value)


def _place(value: Any) -> List[float]:
    y, x = (float(v) for v in np.asarray(value).ravel())
    return [y, x]


def _one(value: Any) -> Tuple[Dict[str, Any], List[np.ndarray]]:
    if value is None or (isinstance(value, dict) and not value):
        return {"none": True}, []
    return {"none": False}, [np.asarray(value)]


def _array(array: np.ndarray) -> Tuple[Dict[str, Any], bytes]:
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    array = np.ascontiguousarray(array)
    return {"dtype": array.dtype.name, "shape": list(array.shape)}, array.tobytes()


def _answer(out: BinaryIO, header: Dict[str, Any], arrays: Sequence[np.ndarray] = ()) -> None:
    packed = [_array(array) for array in arrays]
    header["arrays"] = [head for head, _ in packed]
    text = json.dumps(header).encode()
    out.write(struct.pack("<I", len(text)) + text)
    for _, data in packed:
        out.write(data)
    out.flush()


def _request(source: BinaryIO) -> Optional[Dict[str, Any]]:
    start = source.read(4)
    if len(start) < 4:
        return None
    (length,) = struct.unpack("<I", start)
    return json.loads(source.read(length))


def serve(source: BinaryIO, out: BinaryIO) -> None:
    """Answers requests until there are no more."""
    host = Host()
    while True:
        request = _request(source)
        if request is None:
            return
        what = request.pop("op")
        try:
            answer = getattr(host, what)(**request)
            header, arrays = answer if isinstance(answer, tuple) else (answer, [])
        except FrameError as error:
            header, arrays = {"error": str(error), "traceback": "", "frame": True}, []
        except Interrupted as error:
            header = {"error": str(error), "traceback": "", "frame": False}
            header["interrupted"] = int(error.frames)
            arrays = []
        except BaseException as error:  # Whatever a hook raises is the user's to see.
            text = f"{type(error).__name__}: {error}"
            header = {"error": text, "traceback": traceback.format_exc(), "frame": False}
            arrays = []
        _answer(out, header, arrays)


def main() -> None:
    """Serves the program that has started this interpreter."""
    out = os.fdopen(os.dup(1), "wb")
    # What hooks print must not get between the answers.
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    for place in reversed(sys.argv[1:]):
        if place not in sys.path:
            sys.path.insert(0, place)
    serve(sys.stdin.buffer, out)


if __name__ == "__main__":
    main()
