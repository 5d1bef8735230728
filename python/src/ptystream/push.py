"""Frames pushed from an acquisition script.

The script::

    import ptystream.push
    with ptystream.push.Push("tcp://beamline-server:5720", num_frames=400) as push:
        for y, x in positions:
            move_to(y, x)
            push(detector.read(), (y, x))           # metres

The configuration of whoever prepares::

    [data]
    name = "ptystream.push:Pushed"
    address = "tcp://*:5720"

Frames come in the order of the scan. The script waits while the other side has no room; what has come
is kept by the producer until it is on disk (`pipeline.spool`). Needs pyzmq on both sides.
"""

from __future__ import annotations

import json
import time
from typing import Any, Dict, Optional, Sequence, Tuple

import numpy as np

from .scan import Interrupted, Loaded, Scan

#: Frames that wait in the source; more wait in the script.
KEPT = 32


class Push:
    """The script's side: call it with each frame and its position (y, x) in metres.

    ``num_frames``: how many there will be, if it is known. Leaving the `with` block ends the scan; by an
    exception it is ended early, and the file tells why.
    """

    def __init__(self, address: str, num_frames: Optional[int] = None, linger: float = 30.0) -> None:
        import zmq

        self._linger = int(1000 * linger)
        self._socket: Any = zmq.Context.instance().socket(zmq.PUSH)
        self._socket.set_hwm(KEPT)
        self._socket.connect(address)
        self._num_frames = num_frames
        self._count = 0
        self._started = False

    def __call__(self, frame: Any, position: Sequence[float]) -> None:
        frame = np.ascontiguousarray(frame)
        if not self._started:
            self._started = True
            form = {"dtype": frame.dtype.name, "shape": list(frame.shape)}
            self._send({"start": {**form, "num_frames": self._num_frames}})
        y, x = (float(v) for v in position)
        head: Dict[str, Any] = {"frame": self._count, "position": [y, x]}
        head.update(dtype=frame.dtype.name, shape=list(frame.shape))
        self._socket.send_multipart([json.dumps(head).encode(), frame], copy=True)
        self._count += 1

    def close(self, reason: Optional[str] = None) -> None:
        """Ends the scan, early if there is a reason."""
        if self._socket.closed:
            return
        self._send({"end": self._count, "reason": reason})
        self._socket.close(self._linger)

    def _send(self, head: Dict[str, Any]) -> None:
        self._socket.send_multipart([json.dumps(head).encode(), b""])

    def __enter__(self) -> "Push":
        return self

    def __exit__(self, kind: Any, error: Any, _trace: Any) -> None:
        self.close(None if kind is None else f"{kind.__name__}: {error}")


class Pushed(Scan):
    """Frames that a script pushes.

    Defaults:

    [address]
    type = str
    default = tcp://127.0.0.1:5720
    help = Where scripts push to, tcp://*:PORT for those of other machines

    [wait_secs]
    type = float
    default = 600.0
    lowlim = 0.0
    help = How long to wait for the first frame
    """

    live = True

    def __init__(self, pars: Any = None, **kwargs: Any) -> None:
        import zmq

        super().__init__(pars, **kwargs)
        self._socket: Any = zmq.Context.instance().socket(zmq.PULL)
        self._socket.set_hwm(KEPT)
        self._socket.bind(self.p.address)
        self._frames: Dict[int, Tuple[np.ndarray, Tuple[float, float]]] = {}
        self._came = 0
        self._end: Optional[Tuple[int, Optional[str]]] = None
        print(f"waiting for frames at {self.p.address}")
        start = self._receive(float(self.p.wait_secs))
        if start is None or "start" not in start[0]:
            raise TimeoutError(
                f"no frame was pushed to {self.p.address} for {self.p.wait_secs} s (data.wait_secs)"
            )
        head = start[0]["start"]
        self._form = (head["dtype"], tuple(head["shape"]))
        self.num_frames = head["num_frames"]

    def frame_form(self) -> Tuple[str, Tuple[int, ...]]:
        return self._form

    def identity(self) -> Sequence[Tuple[str, str]]:
        # Each opening is another scan: nobody can push the same frames again.
        return [("pushed", str(time.time_ns()))]

    def check(self, frames: int, start: int) -> Tuple[int, Optional[bool]]:
        while self._end is None and len(self._frames) < KEPT:
            message = self._receive(0.0)
            if message is None:
                break
            self._take(*message)
        if self._end is not None and self._end[1] is not None:
            raise Interrupted(self._end[0], self._end[1])
        ended = self._end is not None
        return max(0, min(frames, self._came - start)), ended if ended else False

    def load(self, indices: Sequence[int]) -> Loaded:
        taken = {i: self._frames.pop(i) for i in indices}
        return (
            {i: frame for i, (frame, _) in taken.items()},
            {i: np.asarray(place) for i, (_, place) in taken.items()},
            {},
        )

    def _receive(self, seconds: float) -> Optional[Tuple[Dict[str, Any], bytes]]:
        if not self._socket.poll(int(1000 * seconds)):
            return None
        head, data = self._socket.recv_multipart()
        return json.loads(head), data

    def _take(self, head: Dict[str, Any], data: bytes) -> None:
        if "end" in head:
            self._end = (head["end"], head["reason"])
            return
        if "start" in head:
            raise RuntimeError("a second script pushes to the same scan")
        form = (head["dtype"], tuple(head["shape"]))
        if head["frame"] != self._came or form != self._form:
            raise RuntimeError(
                f"frame {head['frame']} of {form} was pushed, {self._came} of {self._form} is next"
            )
        frame = np.frombuffer(data, form[0]).reshape(form[1])
        y, x = head["position"]
        self._frames[self._came] = (frame, (y, x))
        self._came += 1
