"""h5py finds in the files what ptypy would have written, and values as plain numpy prepares them."""

import h5py
import numpy as np
import pytest

from conftest import ROOT
from ptyd_reader import read, read_value
from reference import meta_center, prepare

FRAME = (40, 36)
FRAMES = 11


def write_folder(folder, frames, mask=None, dark=None, flat=None, order="C"):
    """Writes a scan in the tutorial's layout and returns its positions."""
    (folder / "ccd").mkdir(parents=True)
    positions = np.random.default_rng(5).uniform(-1e-5, 1e-5, (len(frames), 2))
    lines = []
    for k, frame in enumerate(frames):
        name = f"ccd/diffraction_{k:04d}.npy"
        np.save(folder / name, np.asarray(frame, order=order))
        lines.append("{} {!r} {!r}\n".format(name, *map(float, positions[k])))
    (folder / "positions.txt").write_text("".join(lines))
    (folder / "geometry.txt").write_text("distance 2.5\nenergy 8.0\npsize 5.5e-5\nshape 32\n")
    for name, array in (("mask", mask), ("dark", dark), ("flat", flat)):
        if array is not None:
            np.save(folder / f"{name}.npy", array)
    return positions


def raw_frames(dtype, shape=FRAME, count=FRAMES, seed=3):
    counts = np.random.default_rng(seed).poisson(40.0, (count, *shape))
    return counts.astype(dtype)


def spotted_mask(dtype="u1", shape=FRAME):
    mask = np.ones(shape, dtype)
    mask[5:8, 9:20] = 0
    mask[22, 3] = 0
    return mask


def block(folder, **more):
    """A [data] block for `folder` with everything given that has a default of ptypy's."""
    data = {
        "name": "numpy",
        "path": str(folder),
        "dfile": "out.ptyd",
        "save": "append",
        "auto_center": False,
        "shape": None,
        "center": "fftshift",
        "psize": 5.5e-5,
        "distance": 2.5,
        "energy": 8.0,
    }
    for name in ("mask", "dark", "flat"):
        if (folder / f"{name}.npy").exists():
            data[name] = str(folder / f"{name}.npy")
    data.update(more)
    return data


# shape, center, orientation, rebin, dtype
CASES = [
    (None, [20, 18], 0, 1, "<u2"),
    ([36, 36], [20, 18], 0, 1, "<u2"),
    ([20, 20], [16.5, 17.5], 0, 1, "<u2"),
    ([21, 21], [17.5, 16.5], 3, 1, "<i4"),
    ([24, 24], [20, 18], 5, 2, "<u2"),
    ([24, 24], [19, 15], 6, 4, "<i4"),
    ([32, 32], [20, 18], 7, 2, "<f4"),
    ([30, 30], [20, 18], 1, 3, "<f8"),
    ([30, 30], [20, 18], 2, 6, "|u1"),
    ([48, 48], [20, 18], 0, 1, "<u2"),
    ([48, 48], [18, 20], 4, 2, "<u2"),
    ([48, 48], [18, 20], 3, 4, "<f4"),
    ([20, 20], [4, 30], 0, 2, "<i2"),
    ([30, 30], [20, 18], 4, 5, "<i8"),
]


@pytest.mark.parametrize("shape, center, orientation, rebin, dtype", CASES)
def test_values_are_those_of_plain_numpy(
    ptystream, config, tmp_path, shape, center, orientation, rebin, dtype
):
    frames = raw_frames(dtype, shape=(36, 36) if shape is None else FRAME)
    if shape is None:
        center = [18, 18]
    mask = spotted_mask(shape=frames.shape[1:])
    positions = write_folder(tmp_path / "raw", frames, mask)
    data = block(
        tmp_path / "raw", shape=shape, center=center, orientation=orientation, rebin=rebin
    )
    ptystream("run", config(data, {"frames_per_chunk": 4}), "--quiet")
    got = read(tmp_path / "out.ptyd")
    roi = shape or list(frames.shape[1:])
    expected = [prepare(f, mask, roi, center, orientation, rebin) for f in frames]
    pixels = np.stack([e[0] for e in expected])
    weights = np.stack([e[1] for e in expected])
    assert got.data.dtype == pixels.dtype
    np.testing.assert_array_equal(got.data, pixels)
    np.testing.assert_array_equal(got.weights > 0, weights > 0)
    assert (got.weights.dtype == bool) == (rebin != 1)
    np.testing.assert_array_equal(got.positions, positions)
    with h5py.File(tmp_path / "out.ptyd") as file:
        meta = read_value(file["meta"])
    work = shape is not None or orientation or rebin != 1
    axis = meta_center(roi, orientation, rebin) if work else center
    np.testing.assert_allclose(meta["center"], axis, rtol=1e-14)
    np.testing.assert_array_equal(meta["shape"], [n // rebin for n in roi])
    np.testing.assert_allclose(meta["psize"], [5.5e-5 * rebin] * 2, rtol=1e-14)


def test_dark_and_flat_are_applied_to_raw_pixels_in_float(ptystream, config, tmp_path):
    frames = raw_frames("<u2")
    rng = np.random.default_rng(8)
    dark = rng.uniform(0, 60, FRAME)
    flat = rng.uniform(0.5, 2.0, FRAME)
    write_folder(tmp_path / "raw", frames, spotted_mask(), dark, flat)
    ptystream("run", config(block(tmp_path / "raw", shape=[24, 24], orientation=3)), "--quiet")
    got = read(tmp_path / "out.ptyd")
    corrected = np.maximum(frames.astype("f8") - dark, 0.0) / flat
    expected = [prepare(f, spotted_mask(), (24, 24), (20, 18), 3)[0] for f in corrected]
    assert got.data.dtype == np.float64
    np.testing.assert_array_equal(got.data, np.stack(expected))


@pytest.mark.parametrize("dtype, order", [("<u2", "F"), (">u2", "C"), (">f4", "F"), (">i8", "C")])
def test_reads_fortran_order_and_big_endian_frames(ptystream, config, tmp_path, dtype, order):
    frames = raw_frames(dtype)
    write_folder(tmp_path / "raw", frames, spotted_mask(), order=order)
    with open(tmp_path / "raw" / "ccd" / "diffraction_0000.npy", "rb") as file:
        header = file.read(128)
    assert (b"'fortran_order': True" in header) == (order == "F")
    ptystream("run", config(block(tmp_path / "raw", shape=[20, 20])), "--quiet")
    got = read(tmp_path / "out.ptyd")
    assert got.data.dtype == np.dtype(dtype).newbyteorder("=")
    expected = [prepare(f, spotted_mask(), (20, 20), (20, 18))[0] for f in frames]
    np.testing.assert_array_equal(got.data, np.stack(expected))


def test_a_folder_needs_no_configuration(ptystream, tmp_path):
    frames = raw_frames("<u2", shape=(32, 32))
    positions = write_folder(tmp_path / "raw", frames)
    ptystream(
        "run", "raw", "--quiet", "--set", "data.dfile=out.ptyd", "--set", "data.save=append",
        "--set", "data.shape=32",
    )
    got = read(tmp_path / "out.ptyd")
    np.testing.assert_array_equal(got.data, frames)
    np.testing.assert_array_equal(got.positions, positions)
    with h5py.File(tmp_path / "out.ptyd") as file:
        meta = read_value(file["meta"])
    assert (meta["distance"], meta["energy"], meta["psize"][0]) == (2.5, 8.0, 5.5e-5)


@pytest.mark.parametrize("save", ["append", "link", "merge"])
def test_layout_and_attributes_are_ptypy_s(ptystream, config, tmp_path, save):
    frames = raw_frames("<u2")
    write_folder(tmp_path / "raw", frames, spotted_mask())
    pipeline = {"frames_per_chunk": 4, "compression": "gzip:4"}
    data = block(tmp_path / "raw", shape=[24, 24], rebin=2, save=save, label="a label")
    ptystream("run", config(data, pipeline), "--quiet")
    counts = [11] if save == "merge" else [4, 4, 3]
    with h5py.File(tmp_path / "out.ptyd") as file:
        assert set(file) - {"ptystream"} == {"chunks", "meta", "info"}
        assert file.attrs["h5rw_version"] == "0.1"
        assert file.attrs["ctime"] and file.attrs["mtime"]
        for name in ("chunks", "meta", "info"):
            assert file[name].attrs["type"] == "dict", name
        assert sorted(file["chunks"], key=int) == [str(k) for k in range(len(counts))]
        first = 0
        for k, count in enumerate(counts):
            link = file.get(f"chunks/{k}", getlink=True)
            if save == "link":
                assert isinstance(link, h5py.ExternalLink)
                assert (link.filename, link.path) == (f"out.ptyd.part{k:03d}", "/")
            else:
                assert isinstance(link, h5py.HardLink)
                assert file[f"chunks/{k}"].attrs["type"] == "dict"
            chunk = file[f"chunks/{k}"]
            expect(chunk["data"], (count, 12, 12), "f8", "array")
            expect(chunk["weights"], (count, 12, 12), "?", "array")
            expect(chunk["positions"], (count, 2), "f8", "array")
            expect(chunk["indices"], (count,), "i8", "arraylist")
            assert chunk["data"].compression == "gzip"
            assert list(chunk["indices"]) == list(range(first, first + count))
            first += count
        meta = file["meta"]
        for name in ("version", "energy", "distance"):
            expect(meta[name], (), "f8", "scalar")
        expect(meta["num_frames"], (), "i8", "scalar")
        expect(meta["shape"], (2,), "i8", "array")
        expect(meta["psize"], (2,), "f8", "array")
        expect(meta["center"], (2,), "f8", "array")
        assert meta["label"].attrs["type"] == "string"
        assert read_value(meta["label"]) == "a label"
        assert meta["num_frames"][()] == FRAMES
        assert "weight2d" not in meta
        info = read_value(file["info"])
        assert info["rebin"] == 2
        np.testing.assert_array_equal(info["shape"], [24, 24])
    assert read(tmp_path / "out.ptyd").data.shape == (FRAMES, 12, 12)


def expect(dataset, shape, dtype, kind):
    found = (dataset.shape, dataset.dtype, dataset.attrs["type"])
    assert found == (shape, np.dtype(dtype), kind), dataset.name


def test_the_three_forms_compare_equal(ptystream, config, tmp_path):
    write_folder(tmp_path / "raw", raw_frames("<u2"), spotted_mask())
    for save in ("append", "link", "merge"):
        data = block(tmp_path / "raw", shape=[24, 24], save=save, dfile=f"{save}.ptyd")
        ptystream("run", config(data, {"frames_per_chunk": 4}), "--quiet")
    ptystream("compare", "append.ptyd", "link.ptyd")
    ptystream("compare", "append.ptyd", "merge.ptyd", "--ignore-chunking")
    ptystream("compare", "append.ptyd", "merge.ptyd", expect=1)
    with h5py.File(tmp_path / "append.ptyd", "r+") as file:
        file["chunks/1/data"][2, 3, 4] += 1
    told = ptystream("compare", "append.ptyd", "link.ptyd", expect=1)
    assert "chunks/1/data" in told.stdout + told.stderr


@pytest.mark.parametrize("name", sorted(p.name for p in (ROOT / "examples").glob("*.toml")))
def test_examples_are_valid(ptystream, name):
    shown = ptystream("config", ROOT / "examples" / name)
    assert "dfile" in shown.stdout
