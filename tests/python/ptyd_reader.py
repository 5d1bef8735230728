"""Reads a .ptyd the way ptypy's `PtydScan` does, its weak points included.

A stand-in for tests: whatever this reader follows to the end, ptypy follows too. The life of a call:

    auto(n) -> check: open, list chunks, count frames -> WAIT | EOS | load: open again, read rows

| what ptypy does                                                        | here            |
|------------------------------------------------------------------------|-----------------|
| `chunks/0` must be there when the reader is made                       | `__init__`      |
| meta is read once, `num_frames` with it                                | `__init__`      |
| scalars of meta without `type` stay arrays, and crash the log report   | `read_value`    |
| children of `chunks` have integer names; dead links are dropped        | `_list_chunks`  |
| every chunk has the datasets of the first, of equal rank, no scalars   | `_list_chunks`  |
| frames are numbered by (chunk, row); `indices` is not looked at        | `_load`         |
| end of scan: read + accessible >= num_frames; one more call tells      | `auto`          |

Stricter than ptypy in one thing: frames whose extent is not meta's shape are refused (ptypy pads or
crops them), because no file of this project may look like that.
"""

import dataclasses
import math

import h5py
import numpy as np

WAIT = "WAIT"
EOS = "EOS"


class RunChanged(Exception):
    """The file was taken over by another run while the reader was attached."""


@dataclasses.dataclass
class Chunk:
    """What one call of `auto` delivered; `indices` are the reader's own numbers."""

    indices: list
    data: np.ndarray
    weights: np.ndarray
    positions: np.ndarray


def read_value(item):
    """Decodes one object by its `type` attribute as ptypy's h5rw does."""
    kind = item.attrs.get("type")
    if isinstance(kind, bytes):
        kind = kind.decode()
    if isinstance(item, h5py.Group):
        if kind == "dict" or kind is None:
            return {name: read_value(child) for name, child in item.items()}
        values = [read_value(item[name]) for name in sorted(item)]
        return tuple(values) if kind == "tuple" else values
    if kind == "None":
        return None
    if kind == "scalar":
        return item[()].item() if hasattr(item[()], "item") else item[()]
    if kind == "string":
        return item[()].decode() if isinstance(item[()], bytes) else item[()]
    if kind == "arraylist":
        return list(item[()])
    if kind == "arraytuple":
        return tuple(item[()])
    return np.asarray(item[()])


def run_id(path):
    """Returns the run id that the file carries; None where it has none (files of ptypy)."""
    with h5py.File(path, "r") as file:
        group = file.get("ptystream")
        if group is None:
            return None
        value = group.attrs["run_id"] if "run_id" in group.attrs else group["run_id"][()]
        return value.decode() if isinstance(value, bytes) else str(value)


def _pair(value):
    flat = np.atleast_1d(value)
    return (flat[0], flat[0]) if len(flat) == 1 else (flat[0], flat[1])


class PtydReader:
    """Follows one .ptyd; `guard` makes it careful where ptypy is not: it stops if the run changes."""

    def __init__(self, path, min_frames=1, guard=False):
        self.path = str(path)
        self.min_frames = min_frames
        self.framestart = 0
        self.polls = 0
        self._counts = []
        with h5py.File(self.path, "r") as file:
            if file.get("chunks/0") is None:
                raise OSError(f"{path} contains no data")
            self.meta = read_value(file["meta"])
        self.run = run_id(self.path) if guard else None
        self.guard = guard
        self._check_meta()

    def _check_meta(self):
        for name in ("energy", "distance", "psize", "shape", "num_frames"):
            if name not in self.meta:
                raise KeyError(f"meta/{name} is missing in {self.path}")
        for name in ("version", "num_frames", "energy", "distance"):
            value = self.meta.get(name)
            if isinstance(value, np.ndarray):
                if value.ndim == 0:
                    raise TypeError(f"len() of unsized object: meta/{name} has no type attribute")
                raise TypeError(f"meta/{name} is an array of shape {value.shape}")
        self.num_frames = self.meta["num_frames"]
        self.shape = tuple(int(n) for n in _pair(self.meta["shape"]))
        center = self.meta.get("center")
        if center is None or isinstance(center, str):
            center = [n // 2 for n in self.shape]
        self.center = tuple(float(c) for c in _pair(center))

    def _list_chunks(self, file):
        chunks = file["chunks"]
        found = []
        for name in chunks:
            number = int(name)
            group = chunks.get(name)
            if group is not None:
                found.append((number, group))
        found.sort(key=lambda entry: entry[0])
        first = found[0][1]
        for name in first:
            ranks = set()
            for number, group in found:
                shape = group[name].shape
                if shape == ():
                    raise ValueError(f"chunks/{number}/{name} is a scalar")
                ranks.add(len(shape))
            if len(ranks) != 1:
                raise ValueError(f"chunks/*/{name} differ in rank: {sorted(ranks)}")
        return [(number, group["data"].shape[0]) for number, group in found]

    def check(self, frames, start):
        """Counts what can be read now: (accessible, end of scan or None)."""
        self.polls += 1
        with h5py.File(self.path, "r") as file:
            self._counts = self._list_chunks(file)
        if self.guard:
            self._check_run()
        total = sum(count for _, count in self._counts)
        return min(frames, total - start), None

    def _check_run(self):
        now = run_id(self.path)
        if now != self.run:
            raise RunChanged(f"{self.path}: run {self.run} became {now}")

    def auto(self, frames):
        """Returns the next chunk of at most `frames` frames, or WAIT, or EOS."""
        accessible, end = self.check(frames, self.framestart)
        if end is None:
            end = self.framestart + accessible >= self.num_frames
        if accessible < self.min_frames and not end:
            return WAIT
        if end and accessible <= 0:
            return EOS
        indices = list(range(self.framestart, self.framestart + accessible))
        self.framestart += accessible
        return self._load(indices)

    def _load(self, indices):
        rows = []
        for number, count in self._counts:
            rows.extend((number, row) for row in range(count))
        wanted = {}
        for index in indices:
            number, row = rows[index]
            wanted.setdefault(number, []).append(row)
        data, weights, positions = [], [], []
        with h5py.File(self.path, "r") as file:
            for number, which in wanted.items():
                group = file[f"chunks/{number}"]
                part = slice(which[0], which[-1] + 1)
                data.append(group["data"][part])
                weights.append(self._weights(file, group, data[-1], part))
                positions.append(group["positions"][part])
        if self.guard:
            # Links are followed by name: what they led to counts only if the master is still there.
            self._check_run()
        chunk = Chunk(
            indices, np.concatenate(data), np.concatenate(weights), np.concatenate(positions)
        )
        self._check_pixels(chunk)
        return chunk

    @staticmethod
    def _weights(file, group, data, part):
        if "weights" in group:
            return group["weights"][part]
        if "weight2d" in file["meta"]:
            return np.broadcast_to(file["meta/weight2d"][()], data.shape)
        return np.ones(data.shape)

    def _check_pixels(self, chunk):
        extent = chunk.data.shape[1:]
        if not all(0 < c < n for c, n in zip(self.center, extent)):
            raise AssertionError(f"center {self.center} is outside frames of {extent}")
        if extent != self.shape:
            raise AssertionError(f"frames are {extent}, meta/shape is {self.shape}")
        # The product is what the automatic centre starts from: it fails on weights of another extent.
        if not math.isfinite(float(np.sum(chunk.data[0] * (chunk.weights[0] > 0)))):
            raise ValueError(f"frame {chunk.indices[0]} has values that are not finite")


def read_all(reader, frames=10, attempts=1000):
    """Calls `auto` until EOS, or until it answers WAIT `attempts` times in a row."""
    chunks, waits = [], 0
    while waits < attempts:
        got = reader.auto(frames)
        if got is EOS:
            return chunks, EOS
        if got is WAIT:
            waits += 1
        else:
            waits = 0
            chunks.append(got)
    return chunks, WAIT


def stack(chunks):
    """Puts the chunks of one reader together, and checks that every frame came once, in order."""
    numbers = [number for chunk in chunks for number in chunk.indices]
    assert numbers == list(range(len(numbers))), numbers
    return Chunk(
        numbers,
        np.concatenate([chunk.data for chunk in chunks]),
        np.concatenate([chunk.weights for chunk in chunks]),
        np.concatenate([chunk.positions for chunk in chunks]),
    )


def read(path):
    """Reads a file that is complete, in one go."""
    chunks, end = read_all(PtydReader(path), frames=1000, attempts=1)
    assert end is EOS
    return stack(chunks)
