"""Image series, masks, darks and I0 out of files of any kind, against fabio, tifffile and numpy."""

import h5py
import hdf5plugin
import numpy as np
import pytest

from images import fabio, write_cbf, write_edf, write_tiff
from ptyd_reader import read

FRAMES, ROWS, COLS = 13, 40, 36
CENTER, SHAPE = (20, 18), (24, 24)


def pixels(dtype="<u2"):
    return np.random.default_rng(2).poisson(9.0, (FRAMES, ROWS, COLS)).astype(dtype)


def where():
    return np.random.default_rng(4).uniform(-2e-5, 2e-5, (FRAMES, 2))


def block(name, path, **more):
    data = {
        "name": name,
        "path": path if isinstance(path, list) else str(path),
        "positions": {"file": "positions.npy"},
        "auto_center": False,
        "shape": list(SHAPE),
        "center": list(CENTER),
        "psize": 5e-5,
        "distance": 2.0,
        "energy": 9.0,
        "dfile": "out.ptyd",
        "save": "append",
    }
    data.update(more)
    return data


def crop(image):
    return image[CENTER[0] - 12 : CENTER[0] + 12, CENTER[1] - 12 : CENTER[1] + 12]


def check(path, frames, mask=None):
    got = read(path)
    np.testing.assert_array_equal(got.data, np.stack([crop(f) for f in frames]))
    np.testing.assert_array_equal(got.positions, where())
    if mask is not None:
        np.testing.assert_array_equal(got.weights > 0, np.stack([crop(mask)] * len(frames)))
    return got


@pytest.fixture
def folder(tmp_path):
    np.save(tmp_path / "positions.npy", where())
    raw = tmp_path / "raw"
    raw.mkdir()
    return raw


@pytest.mark.parametrize("parallel", ["data", None])
@pytest.mark.parametrize(
    ("name", "ending", "write", "dtype"),
    [
        ("tiff", "tif", write_tiff, "<u2"),
        ("edf", "edf", write_edf, "<u2"),
        ("cbf", "cbf", write_cbf, "<i4"),
    ],
)
def test_a_folder_in_the_natural_order(
    ptystream, config, folder, name, ending, write, dtype, parallel
):
    frames = pixels(dtype)
    for k, frame in enumerate(frames):
        # frame_9 before frame_10
        write(folder / f"frame_{k}.{ending}", frame)
    (folder / "readme.txt").write_text("not a frame")
    data = block(name, folder, load_parallel=parallel)
    ptystream("run", config(data, {"frames_per_chunk": 5}), "--quiet")
    assert check(folder.parent / "out.ptyd", frames).data.dtype == np.dtype(dtype)


@pytest.mark.parametrize("dtype", ["u1", "<u4", "<i2", "<f4", "<f8", ">u2"])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_tiffs_of_each_type_and_compression(ptystream, config, folder, dtype, compression):
    if compression:
        pytest.importorskip("imagecodecs")
    frames = pixels(dtype)
    order = ">" if dtype.startswith(">") else "<"
    for k, frame in enumerate(frames):
        write_tiff(folder / f"{k:03}.tif", frame, compression=compression, byteorder=order)
    ptystream("run", config(block("tiff", folder / "*.tif")), "--quiet")
    check(folder.parent / "out.ptyd", frames)


@pytest.mark.parametrize("split", [13, 5])
def test_pages_of_a_tiff_are_frames(ptystream, config, folder, split):
    frames = pixels()
    files = []
    for start in range(0, FRAMES, split):
        path = folder / f"stack_{start}.tif"
        write_tiff(path, frames[start : start + split])
        files.append(str(path))
    ptystream("run", config(block("tiff", files)), "--quiet")
    check(folder.parent / "out.ptyd", frames)


def test_images_of_an_edf_are_frames(ptystream, config, folder):
    frames = pixels("<i4")
    write_edf(folder / "many.edf", frames)
    with fabio.open(str(folder / "many.edf")) as again:
        assert again.nframes == FRAMES
    ptystream("run", config(block("edf", folder / "many.edf")), "--quiet")
    check(folder.parent / "out.ptyd", frames)


def test_geometry_of_a_cbf_counts_where_none_is_given(ptystream, config, folder):
    frames = pixels("<i4")
    for k, frame in enumerate(frames):
        image = fabio.cbfimage.CbfImage(data=frame)
        image.write(str(folder / f"{k:02}.cbf"))
        path = folder / f"{k:02}.cbf"
        comments = (
            b"###CBF: VERSION 1.5\r\n# Detector_distance 1.25 m\r\n"
            b"# Pixel_size 172e-6 m x 172e-6 m\r\n# Wavelength 1.24 A\r\n"
        )
        rest = path.read_bytes().split(b"\n", 1)[1]
        path.write_bytes(comments + rest)
    data = block("cbf", folder)
    for key in ("psize", "distance", "energy"):
        del data[key]
    ptystream("run", config(data), "--quiet")
    check(folder.parent / "out.ptyd", frames)
    with h5py.File(folder.parent / "out.ptyd") as file:
        assert file["meta/distance"][()] == 1.25
        np.testing.assert_allclose(file["meta/energy"][()], 12.398419843 / 1.24, rtol=1e-9)
        np.testing.assert_allclose(file["meta/psize"][()], 172e-6)


def test_masks_of_any_kind_are_combined(ptystream, config, folder):
    frames = pixels()
    for k, frame in enumerate(frames):
        write_tiff(folder / f"{k:03}.tif", frame)
    rng = np.random.default_rng(7)
    masks = (rng.uniform(size=(4, ROWS, COLS)) > 0.1).astype("u1")
    top = folder.parent
    np.save(top / "a.npy", masks[0])
    write_tiff(top / "b.tif", masks[1])
    write_edf(top / "c.edf", masks[2])
    with h5py.File(top / "d.h5", "w") as file:
        file["bad"] = 1 - masks[3]
    mask = [
        "a.npy",
        "b.tif",
        {"file": "c.edf"},
        {"file": "d.h5", "key": "bad", "invert": True},
    ]
    ptystream("run", config(block("tiff", folder, mask=mask)), "--quiet")
    check(top / "out.ptyd", frames, masks.all(axis=0))


def test_a_list_of_masks_takes_the_place_of_the_group_of_hdf5(ptystream, config, folder):
    frames, top = pixels(), folder.parent
    keep = np.random.default_rng(1).uniform(size=(2, ROWS, COLS)) > 0.2
    np.save(top / "a.npy", keep[0])
    with h5py.File(top / "raw.h5", "w") as file:
        file["data"] = frames
        file["y"], file["x"] = where().T
        file["mask"] = keep[1].astype("u4")
    data = block("hdf5", "")
    del data["path"]
    data["intensities"] = {"file": "raw.h5", "key": "data"}
    data["positions"] = {"file": "raw.h5", "slow_key": "y", "fast_key": "x"}
    data["mask"] = ["a.npy", {"file": "raw.h5", "key": "mask"}]
    ptystream("run", config(data), "--quiet")
    check(top / "out.ptyd", frames, keep.all(axis=0))


def test_dark_flat_and_i0_of_a_series(ptystream, config, folder):
    frames, top = pixels("<f8"), folder.parent
    for k, frame in enumerate(frames):
        write_tiff(folder / f"{k:03}.tif", frame)
    rng = np.random.default_rng(3)
    darks = rng.uniform(0, 4, (5, ROWS, COLS))
    flat = rng.uniform(0.5, 2.0, (ROWS, COLS))
    i0 = rng.uniform(80, 120, FRAMES)
    np.save(top / "darks.npy", darks)
    write_tiff(top / "flat.tif", flat)
    lines = "".join(f"{k} {value!r}\n" for k, value in enumerate(i0.tolist()))
    (top / "i0.txt").write_text("# frame, counts\n" + lines)
    for reference, factor in [
        ("scan", i0.mean()),
        ("first_chunk", i0[:5].mean()),
        (100.0, 100.0),
    ]:
        data = block(
            "tiff",
            folder,
            dark={"file": "darks.npy", "average": "median"},
            flat="flat.tif",
            normalization={
                "file": "i0.txt",
                "column": 1,
                "sigma": 100.0,
                "reference": reference,
            },
        )
        pipeline = {"frames_per_chunk": 5, "force": True}
        ptystream("run", config(data, pipeline), "--quiet")
        got = read(top / "out.ptyd")
        clean = np.maximum(frames - np.median(darks, axis=0), 0) / flat
        expected = clean / i0[:, None, None] * factor
        np.testing.assert_allclose(got.data, [crop(f) for f in expected], rtol=1e-12)


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda raw: (raw / "003.tif").write_bytes(b"II*\0" + bytes(40)), ["frame 3", "003.tif"]),
        (lambda raw: write_tiff(raw / "003.tif", np.zeros((3, 3), "u2")), ["frame 3", "003.tif"]),
    ],
)
def test_a_damaged_file_is_a_gap_that_is_named(ptystream, config, folder, break_it, words):
    for k, frame in enumerate(pixels()):
        write_tiff(folder / f"{k:03}.tif", frame)
    break_it(folder)
    done = ptystream("run", config(block("tiff", folder)), expect=5)
    assert all(word in done.stdout + done.stderr for word in words), done.stderr + done.stdout


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"path": "nowhere"}, 3, ["nowhere", "is missing"]),
        ({"path": "raw/*.tif"}, 3, ["*.tif"]),
        ({"mask": ["nomask.npy"]}, 3, ["data.mask[0]", "nomask.npy", "is missing"]),
        ({"mask": [{"key": "x"}]}, 2, ["data.mask", "invert"]),
        ({"mask": "small.npy"}, 3, ["small.npy", "[2, 2]", "[40, 36]"]),
        ({"mask": "text.npy"}, 3, ["text.npy", "none of .npy"]),
        ({"positions": {"file": "short.txt", "slow_index": 3}}, 3, ["short.txt", "no column 3"]),
        ({"normalization": {"file": "short.txt"}}, 3, ["short.txt", "2 values", "13 frames"]),
    ],
)
def test_what_is_wrong_is_named(ptystream, config, folder, change, code, words):
    top = folder.parent
    for k, frame in enumerate(pixels()):
        write_edf(folder / f"{k:03}.edf", frame)
    np.save(top / "small.npy", np.ones((2, 2)))
    (top / "text.npy").write_text("hello")
    (top / "short.txt").write_text("1 2\n3 4\n")
    data = block("tiff" if "path" in change else "edf", folder)
    data.update(change)
    done = ptystream("run", config(data), expect=code)
    assert all(word in done.stderr for word in words), done.stderr
    assert not (top / "out.ptyd").exists()


def test_a_truncated_edf_is_named(ptystream, config, folder):
    for k, frame in enumerate(pixels()):
        write_edf(folder / f"{k:03}.edf", frame)
    path = folder / "000.edf"
    path.write_bytes(path.read_bytes()[:-100])
    done = ptystream("run", config(block("edf", folder)), expect=3)
    assert "000.edf" in done.stderr and "truncated" in done.stderr, done.stderr


BLOSC = [
    {"cname": name, "shuffle": shuffle}
    for name in ("blosclz", "lz4", "lz4hc", "zlib", "zstd")
    for shuffle in (0, 1, 2)
]


@pytest.mark.parametrize("how", BLOSC, ids=lambda how: f"{how['cname']}-{how['shuffle']}")
@pytest.mark.parametrize("parallel", ["data", None])
def test_blosc_is_decoded_without_its_plugin(ptystream, config, tmp_path, how, parallel):
    frames = pixels()
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        chunks = (1 if how["shuffle"] else 4, ROWS, COLS)
        file.create_dataset("data", data=frames, chunks=chunks, **hdf5plugin.Blosc(**how))
        file["y"], file["x"] = where().T
    data = block("hdf5", "", load_parallel=parallel)
    del data["path"]
    data["intensities"] = {"file": "raw.h5", "key": "data"}
    data["positions"] = {"file": "raw.h5", "slow_key": "y", "fast_key": "x"}
    ptystream("run", config(data), "--quiet")
    check(tmp_path / "out.ptyd", frames)


def hdf5(frames, **more):
    data = block("hdf5", "")
    del data["path"]
    data["intensities"] = {"file": "raw.h5", "key": "data"}
    data["positions"] = {"file": "raw.h5", "slow_key": "y", "fast_key": "x"}
    data.update(more)
    return data


@pytest.mark.parametrize("parallel", ["data", None])
def test_darks_and_flats_of_each_frame(ptystream, config, tmp_path, parallel):
    frames = pixels()
    rng = np.random.default_rng(5)
    darks = rng.integers(0, 4, frames.shape).astype("u2")
    flats = rng.uniform(0.5, 2.0, frames.shape)
    flats[3, 20, 18] = 0.0
    mask = rng.uniform(size=(ROWS, COLS)) > 0.1
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file["data"], file["darks"], file["flats"] = frames, darks, flats
        file["y"], file["x"] = where().T
        file["mask"] = mask.astype("u1")
    data = hdf5(
        frames,
        darkfield={"key": "darks"},
        flatfield={"key": "flats"},
        mask={"key": "mask"},
        load_parallel=parallel,
    )
    ptystream("run", config(data), "--quiet")
    got = read(tmp_path / "out.ptyd")
    clean = np.maximum(frames.astype(float) - darks, 0)
    good = flats != 0
    expected = np.where(good, clean / np.where(good, flats, 1), 0)
    np.testing.assert_array_equal(got.data, np.stack([crop(f) for f in expected]))
    weights = [crop(mask & g) for g in good]
    np.testing.assert_array_equal(got.weights > 0, np.stack(weights))
    # With the average given, the same stack is one dark.
    data["darkfield"]["average"] = "mean"
    del data["flatfield"]
    ptystream("run", config(data, {"force": True}), "--quiet")
    got = read(tmp_path / "out.ptyd")
    expected = np.maximum(frames - darks.mean(axis=0), 0)
    np.testing.assert_allclose(got.data, np.stack([crop(f) for f in expected]), rtol=1e-12)


@pytest.mark.parametrize("chunks", [None, (1, 1, ROWS, COLS), (2, 5, ROWS, COLS)])
def test_each_outer_index_is_a_file(ptystream, config, tmp_path, chunks):
    outer = 3
    frames = np.random.default_rng(8).poisson(9.0, (outer, FRAMES, ROWS, COLS)).astype("u2")
    energies = np.array([8.0, 8.5, 9.0])
    shifts = np.arange(outer)[:, None] * 1e-6
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file.create_dataset("data", data=frames, chunks=chunks)
        file["y"] = where()[:, 0] + shifts
        file["x"] = where()[:, 1]
        file["energy"] = energies
    data = hdf5(frames, recorded_energy={"key": "energy"}, outer_index="all")
    del data["energy"]
    done = ptystream("run", config(data), "--quiet")
    for k in range(outer):
        path = tmp_path / f"out_outer{k:03}.ptyd"
        got = read(path)
        np.testing.assert_array_equal(got.data, np.stack([crop(f) for f in frames[k]]))
        positions = where() + np.array([shifts[k, 0], 0])
        np.testing.assert_allclose(got.positions, positions, rtol=1e-14)
        with h5py.File(path) as file:
            assert file["meta/energy"][()] == energies[k]
    assert "outer index 2 of 3" in done.stderr
    data["outer_index"] = 3
    done = ptystream("run", config(data), expect=3)
    assert "outer_index = 3" in done.stderr and "the last one, 2" in done.stderr


def test_a_ptyd_that_is_only_read_is_not_touched(ptystream, config, tmp_path):
    frames = pixels()
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file["data"] = frames
        file["y"], file["x"] = where().T
    ptystream("run", config(hdf5(frames)), "--quiet")
    before = (tmp_path / "out.ptyd").read_bytes()
    files = sorted(p.name for p in tmp_path.iterdir())
    for source in [{}, {"source": "file"}, {"source": None}]:
        data = {"name": "PtydScan", "dfile": "out.ptyd", **source}
        ptystream("run", config(data), "--quiet")
        assert (tmp_path / "out.ptyd").read_bytes() == before
        assert sorted(p.name for p in tmp_path.iterdir()) == files
    done = ptystream("run", config({"name": "ptyd", "dfile": "out.ptyd", "save": "link"}), expect=2)
    assert "out.ptyd" in done.stderr and "data.source" in done.stderr
    assert (tmp_path / "out.ptyd").read_bytes() == before
