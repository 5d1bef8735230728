"""The hdf5 source reads what beamlines write: compressed, chunked, rastered and virtual datasets."""

import h5py
import hdf5plugin
import numpy as np
import pytest

from ptyd_reader import EOS, PtydReader, read_all, stack
from reference import prepare

FRAMES, ROWS, COLS = 13, 40, 36

STORAGE = {
    "contiguous": {},
    "gzip-shuffle": {"chunks": (1, ROWS, COLS), "compression": "gzip", "shuffle": True},
    "gzip-fletcher": {"chunks": (1, ROWS, COLS), "compression": "gzip", "fletcher32": True},
    "bslz4": {"chunks": (1, ROWS, COLS), **hdf5plugin.Bitshuffle(cname="lz4")},
    "lz4": {"chunks": (1, ROWS, COLS), **hdf5plugin.LZ4()},
    "gzip-four-frames": {"chunks": (4, ROWS, COLS), "compression": "gzip"},
    "gzip-cut-frames": {"chunks": (1, 16, 16), "compression": "gzip"},
    "uncompressed-chunks": {"chunks": (1, ROWS, COLS)},
}


def pixels(dtype="<u2"):
    return np.random.default_rng(2).poisson(9.0, (FRAMES, ROWS, COLS)).astype(dtype)


def mask_of():
    mask = np.ones((ROWS, COLS), "u1")
    mask[10:12, 3:30] = 0
    return mask


def write(path, frames, **storage):
    """Writes frames, a mask, and one position list per axis (micrometres)."""
    rng = np.random.default_rng(4)
    axes = rng.uniform(-20.0, 20.0, (2, len(frames)))
    with h5py.File(path, "w") as file:
        file.create_dataset("entry/data", data=frames, **storage)
        file["entry/y"], file["entry/x"] = axes
        file["entry/mask"] = mask_of()
    return axes.T * 1e-6


def block(path, **more):
    data = {
        "name": "hdf5",
        "intensities": {"file": str(path), "key": "entry/data"},
        "positions": {
            "file": str(path),
            "slow_key": "entry/y",
            "fast_key": "entry/x",
            "slow_multiplier": 1e-6,
            "fast_multiplier": 1e-6,
        },
        "mask": {"file": str(path), "key": "entry/mask"},
        "auto_center": False,
        "shape": [24, 24],
        "center": [20, 18],
        "psize": 5e-5,
        "distance": 2.0,
        "energy": 9.0,
        "dfile": "out.ptyd",
        "save": "append",
    }
    data.update(more)
    return data


def check(path, frames, positions):
    chunks, end = read_all(PtydReader(path), frames=1000, attempts=1)
    assert end is EOS
    got = stack(chunks)
    expected = [prepare(f, mask_of(), (24, 24), (20, 18)) for f in frames]
    np.testing.assert_array_equal(got.data, np.stack([e[0] for e in expected]))
    np.testing.assert_array_equal(got.weights > 0, np.stack([e[1] for e in expected]) > 0)
    np.testing.assert_array_equal(got.positions, positions)
    return got


@pytest.mark.parametrize("form", STORAGE)
def test_reads_each_form_of_storage(ptystream, config, tmp_path, form):
    frames = pixels()
    positions = write(tmp_path / "raw.h5", frames, **STORAGE[form])
    pipeline = {"frames_per_chunk": 5}
    ptystream("run", config(block(tmp_path / "raw.h5"), pipeline), "--quiet")
    got = check(tmp_path / "out.ptyd", frames, positions)
    assert got.data.dtype == np.uint16


@pytest.mark.parametrize("dtype", ["<u1", "<u4", "<i4", "<f4", "<f8"])
@pytest.mark.parametrize("form", ["bslz4", "lz4"])
def test_reads_each_pixel_type(ptystream, config, tmp_path, dtype, form):
    frames = pixels(dtype)
    positions = write(tmp_path / "raw.h5", frames, **STORAGE[form])
    ptystream("run", config(block(tmp_path / "raw.h5")), "--quiet")
    got = check(tmp_path / "out.ptyd", frames, positions)
    assert got.data.dtype == np.dtype(dtype)


@pytest.mark.parametrize("form", ["contiguous", "gzip-shuffle"])
def test_reads_big_endian_pixels(ptystream, config, tmp_path, form):
    frames = pixels(">u2")
    positions = write(tmp_path / "raw.h5", frames, **STORAGE[form])
    ptystream("run", config(block(tmp_path / "raw.h5")), "--quiet")
    check(tmp_path / "out.ptyd", frames, positions)


@pytest.mark.parametrize("compressed", [False, True])
def test_reads_a_raster_with_meshed_axes(ptystream, config, tmp_path, compressed):
    frames = pixels()[:12]
    slow, fast = np.array([-3.0, 1.0, 4.0]), np.array([0.5, 1.5, 2.0, 7.0])
    storage = {"chunks": (1, 1, ROWS, COLS), **hdf5plugin.Bitshuffle()} if compressed else {}
    path = tmp_path / "raw.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("entry/data", data=frames.reshape(3, 4, ROWS, COLS), **storage)
        file["entry/y"], file["entry/x"] = slow, fast
        file["entry/mask"] = mask_of()
    ptystream("run", config(block(path), {"frames_per_chunk": 5}), "--quiet")
    grid = np.stack(np.meshgrid(slow * 1e-6, fast * 1e-6, indexing="ij"), axis=-1)
    check(tmp_path / "out.ptyd", frames, grid.reshape(-1, 2))


def test_picks_columns_of_one_positions_array_and_inverts_the_mask(ptystream, config, tmp_path):
    frames = pixels()
    path = tmp_path / "raw.cxi"
    xyz = np.random.default_rng(1).uniform(-1e-5, 1e-5, (FRAMES, 3)).astype("f4")
    with h5py.File(path, "w") as file:
        file.create_dataset("entry/data", data=frames, **STORAGE["gzip-shuffle"])
        file["entry/translation"] = xyz
        file["entry/bad"] = 1 - mask_of()
    data = block(
        path,
        positions={
            "file": str(path),
            "slow_key": "entry/translation",
            "slow_index": 1,
            "fast_key": "entry/translation",
            "fast_index": 0,
        },
        mask={"file": str(path), "key": "entry/bad", "invert": True},
    )
    ptystream("run", config(data), "--quiet")
    check(tmp_path / "out.ptyd", frames, xyz[:, [1, 0]])


def virtual(path, sources):
    layout = h5py.VirtualLayout(shape=(FRAMES, ROWS, COLS), dtype="<u2")
    first = 0
    for name, count in sources:
        layout[first : first + count] = h5py.VirtualSource(name, "data", (count, ROWS, COLS))
        first += count
    with h5py.File(path, "r+") as file:
        del file["entry/data"]
        file.create_virtual_dataset("entry/data", layout)


def test_reads_a_virtual_dataset(ptystream, config, tmp_path):
    frames = pixels()
    path = tmp_path / "raw.h5"
    positions = write(path, frames)
    with h5py.File(tmp_path / "a.h5", "w") as a, h5py.File(tmp_path / "b.h5", "w") as b:
        a["data"], b["data"] = frames[:6], frames[6:]
    virtual(path, [("a.h5", 6), ("b.h5", 7)])
    ptystream("run", config(block(path)), "--quiet")
    check(tmp_path / "out.ptyd", frames, positions)


def test_refuses_a_virtual_dataset_whose_source_is_missing(ptystream, config, tmp_path):
    frames = pixels()
    path = tmp_path / "raw.h5"
    write(path, frames)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = frames[:6]
    virtual(path, [("a.h5", 6), ("gone.h5", 7)])
    told = ptystream("run", config(block(path)), "--quiet", expect=3)
    assert "gone.h5" in told.stderr
    assert "zero" in told.stderr
    assert not (tmp_path / "out.ptyd").exists()


def test_names_the_missing_key_and_its_neighbours(ptystream, config, tmp_path):
    path = tmp_path / "raw.h5"
    write(path, pixels())
    wrong = {"file": str(path), "key": "entry/dota"}
    told = ptystream("run", config(block(path, intensities=wrong)), "--quiet", expect=3)
    assert "entry/dota" in told.stderr
    assert "raw.h5" in told.stderr


def test_refuses_more_positions_than_frames(ptystream, config, tmp_path):
    path = tmp_path / "raw.h5"
    write(path, pixels())
    with h5py.File(path, "r+") as file:
        for name in ("entry/y", "entry/x"):
            del file[name]
            file[name] = np.zeros(FRAMES + 2)
    told = ptystream("run", config(block(path)), "--quiet", expect=3)
    assert str(FRAMES) in told.stderr and str(FRAMES + 2) in told.stderr
