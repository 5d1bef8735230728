"""The rest of Hdf5Loader's parameters, and files split over many, against plain numpy."""

import h5py
import numpy as np
import pytest

from ptyd_reader import read
from reference import prepare
from test_hdf5_inputs import COLS, ROWS, block, mask_of, write


def frames_of(count, dtype="<u2", seed=6):
    return np.random.default_rng(seed).poisson(9.0, (count, ROWS, COLS)).astype(dtype)


def expected(frames, mask=None):
    mask = mask_of() if mask is None else mask
    return np.stack([prepare(f, mask, (24, 24), (20, 18))[0] for f in frames])


def with_positions(data, **more):
    data["positions"] = {**data["positions"], **more}
    return data


def test_a_list_is_cut_skipped_filtered_and_reordered(ptystream, config, tmp_path):
    frames = frames_of(20)
    path = tmp_path / "raw.h5"
    positions = write(path, frames, chunks=(1, ROWS, COLS), compression="gzip")
    good = np.ones(20)
    good[[4, 10]] = [0.0, -1.0]
    with h5py.File(path, "a") as file:
        file["entry/good"] = good
    data = with_positions(block(path), skip=2, bounding_box={"slow_axis_bounds": [2, 18]})
    data["framefilter"] = {"key": "entry/good"}
    data["frameorder"] = {"indices": [5, 0, 1]}
    ptystream("run", config(data, {"frames_per_chunk": 2}), "--quiet")
    left = [k for k in range(2, 18, 2) if good[k] > 0]
    chosen = [left[5], left[0], left[1]]
    got = read(tmp_path / "out.ptyd")
    np.testing.assert_array_equal(got.data, expected(frames[chosen]))
    np.testing.assert_array_equal(got.positions, positions[chosen])


@pytest.mark.parametrize("layout", ["4-D", "meshed", "listed"])
def test_a_part_of_a_grid(ptystream, config, tmp_path, layout):
    rows, cols = 4, 5
    frames = frames_of(rows * cols)
    slow, fast = np.arange(4) * 2.0, np.arange(5) * 0.5
    y, x = np.meshgrid(slow, fast, indexing="ij")
    path = tmp_path / "raw.h5"
    with h5py.File(path, "w") as file:
        shape = (rows, cols, ROWS, COLS) if layout == "4-D" else frames.shape
        file["entry/data"] = frames.reshape(shape)
        file["entry/y"] = slow if layout == "meshed" else y
        file["entry/x"] = fast if layout == "meshed" else x
        file["entry/mask"] = mask_of()
    box = {"slow_axis_bounds": 1, "fast_axis_bounds": [1, 4]}
    ptystream("run", config(with_positions(block(path), bounding_box=box)), "--quiet")
    chosen = [r * cols + c for r in range(1, 4) for c in range(1, 4)]
    got = read(tmp_path / "out.ptyd")
    np.testing.assert_array_equal(got.data, expected(frames[chosen]))
    both = np.stack([y.ravel(), x.ravel()], axis=1)[chosen] * 1e-6
    np.testing.assert_array_equal(got.positions, both)


def test_zeros_around_frames(ptystream, config, tmp_path):
    frames = frames_of(4)
    path = tmp_path / "raw.h5"
    write(path, frames)
    data = block(path, padding=[3, 1, 0, 8], shape=[44, 44], center=[22, 22])
    ptystream("run", config(data), "--quiet")
    wide = np.pad(frames, ((0, 0), (3, 1), (0, 8)))
    mask = np.pad(mask_of(), ((3, 1), (0, 8)))
    got = read(tmp_path / "out.ptyd")
    np.testing.assert_array_equal(got.data, wide)
    np.testing.assert_array_equal(got.weights > 0, np.stack([mask > 0] * 4))


@pytest.mark.parametrize("average", ["mean", "median"])
def test_a_stack_of_darks_is_averaged(ptystream, config, tmp_path, average):
    frames = frames_of(5)
    darks = np.random.default_rng(1).poisson(2.0, (6, ROWS, COLS)).astype("<u2")
    darks[0] += 100
    path = tmp_path / "raw.h5"
    write(path, frames)
    with h5py.File(path, "a") as file:
        file["entry/dark"] = darks
    dark = {"key": "entry/dark", "average": average}
    ptystream("run", config(block(path, darkfield=dark)), "--quiet")
    one = getattr(np, average)(darks.astype(float), axis=0)
    corrected = np.clip(frames - one, 0.0, None)
    got = read(tmp_path / "out.ptyd")
    np.testing.assert_allclose(got.data, expected(corrected), rtol=1e-15)


def test_electrons_become_photons_of_their_wavelength(ptystream, config, tmp_path):
    path = tmp_path / "raw.h5"
    write(path, frames_of(3))
    ptystream("run", config(block(path, electron_data=True, energy=200.0)), "--quiet")
    # 200 keV electrons: 2.5079 pm, the value of every table.
    with h5py.File(tmp_path / "out.ptyd") as file:
        energy = file["meta/energy"][()]
    assert 1.23984198 / energy == pytest.approx(2.5079e-3, rel=1e-4)


@pytest.mark.parametrize("compressed", [True, False])
def test_files_split_over_many_follow_each_other(ptystream, config, tmp_path, compressed):
    # As a detector's writer does it: a master, and so many frames a file.
    frames = frames_of(23, "<u4")
    counts = [10, 10, 3]
    storage = {"chunks": (1, ROWS, COLS)}
    if compressed:
        import hdf5plugin

        storage |= hdf5plugin.Bitshuffle(cname="lz4")
    with h5py.File(tmp_path / "run_master.h5", "w") as master:
        at = 0
        # Eleven names, so that the order of texts would be wrong.
        for n, count in zip([1, 2, 11], counts):
            name = f"run_data_{n}.h5"
            with h5py.File(tmp_path / name, "w") as part:
                part.create_dataset("entry/data/data", data=frames[at : at + count], **storage)
            master[f"entry/data/data_{n}"] = h5py.ExternalLink(name, "/entry/data/data")
            at += count
        bits = np.zeros((ROWS, COLS), "<u4")
        bits[3, 4], bits[5, 6] = 1, 1 << 30
        master["entry/instrument/detector/pixel_mask"] = bits
        master["entry/instrument/beam/photon_energy"] = 6200.0
        master["entry/y"], master["entry/x"] = np.arange(23.0), np.arange(23.0)[::-1]
    path = tmp_path / "run_master.h5"
    data = block(path)
    data["intensities"]["key"] = "entry/data/data_*"
    data["mask"] = {"key": "entry/instrument/detector/pixel_mask", "invert": True}
    data["recorded_energy"] = {"key": "entry/instrument/beam/photon_energy", "multiplier": 1e-3}
    del data["energy"]
    ptystream("run", config(data, {"frames_per_chunk": 7}), "--quiet")
    good = (bits == 0).astype("u1")
    got = read(tmp_path / "out.ptyd")
    np.testing.assert_array_equal(got.data, expected(frames, good))
    with h5py.File(tmp_path / "out.ptyd") as file:
        assert file["meta/energy"][()] == pytest.approx(6.2)
    (tmp_path / "run_data_2.h5").unlink()
    said = ptystream("run", config(data), "--force", expect=3).stderr
    assert "data_2" in said


@pytest.mark.parametrize(
    "more, words",
    [
        ({"positions.bounding_box.slow_axis_bounds": 99}, "is not within the axis of 13 points"),
        ({"positions.bounding_box.fast_axis_bounds": [0, 2]}, "without rows"),
        ({"positions.bounding_box.slow_axis_bounds": [3, 1]}, "neither a lower bound nor"),
        ({"frameorder.indices": [50]}, "none of the 13 frames"),
        ({"framefilter.key": "entry/mask"}, "not one value for each of 13 frames"),
        ({"padding": [1, 2]}, "[top, bottom, left, right]"),
        ({"intensities.key": "entry/nothing_*"}, "no dataset 'entry/nothing_*'"),
    ],
)
def test_what_does_not_fit_is_named(ptystream, config, tmp_path, more, words):
    write(tmp_path / "raw.h5", frames_of(13))
    sets = [f"--set=data.{key}={value}" for key, value in more.items()]
    run = ptystream("run", config(block(tmp_path / "raw.h5")), *sets, expect=None)
    assert run.returncode in (2, 3) and words in run.stderr, run.stderr
    assert not (tmp_path / "out.ptyd").exists()


def test_the_preset_of_cxi_reads_the_real_scan(ptystream, shared):
    raw = shared / "real" / "PETRAIII_P25_Near_Field_Ptycho.cxi"
    if not raw.is_file():
        pytest.skip("../shared/real is absent")
    sets = [f"data.intensities.file={raw}", "data.auto_center=false", "data.center=None"]
    more = [word for text in [*sets, "data.dfile=out.ptyd"] for word in ("--set", text)]
    ptystream("run", "--preset", "cxi", "--quiet", *more)
    ptystream("compare", "out.ptyd", shared / "real" / "petra_p25_full.ptyd")


def test_presets_read_the_layouts_that_they_are_for(ptystream, tmp_path):
    frames = frames_of(6, "<u4")
    frames[2, 7, 8] = 0xFFFFFFFF
    y, x = np.arange(6.0), np.arange(6.0)[::-1]

    def run(preset, name, *sets):
        more = [word for text in sets for word in ("--set", f"data.{text}")]
        base = ["--set", f"data.intensities.file={tmp_path / name}", "--set", "data.dfile=out.ptyd"]
        where = ["--set", "data.center=[20,18]", "--set", "data.shape=24"]
        ptystream("run", "--preset", preset, "--quiet", "--force", *base, *where, *more)
        return read(tmp_path / "out.ptyd")

    with h5py.File(tmp_path / "d.nxs", "w") as file:
        file["entry/data/data"] = frames
        file["entry/data/y"], file["entry/data/x"] = y, x
    got = run("diamond-nexus", "d.nxs", "energy=8", "distance=2", "psize=5e-5")
    ones = np.ones((ROWS, COLS), "i8")
    np.testing.assert_array_equal(got.data, expected(frames, ones))
    np.testing.assert_array_equal(got.positions, np.stack([y, x], axis=1) * 1e-3)

    with h5py.File(tmp_path / "n.h5", "w") as file:
        file["entry/measurement/eiger4m/frames"] = frames
        file["entry/measurement/pseudo/y"] = y
        file["entry/measurement/pseudo/x"] = x
        file["entry/snapshot/energy"] = np.array([8200.0])
    got = run("nanomax-contrast", "n.h5", "distance=2", "psize=5e-5")
    good = frames != 0xFFFFFFFF
    np.testing.assert_array_equal(got.data, expected(np.where(good, frames, 0), ones))
    weights = np.stack([prepare(f, ones * g, (24, 24), (20, 18))[1] for f, g in zip(frames, good)])
    np.testing.assert_array_equal(got.weights > 0, weights > 0)
    np.testing.assert_array_equal(got.positions, np.stack([y, x], axis=1) * -1e-6)
    with h5py.File(tmp_path / "out.ptyd") as file:
        assert file["meta/energy"][()] == pytest.approx(8.2)

    with h5py.File(tmp_path / "x_data_1.h5", "w") as part:
        part["entry/data/data"] = frames
    with h5py.File(tmp_path / "x_master.h5", "w") as file:
        file["entry/data/data_000001"] = h5py.ExternalLink("x_data_1.h5", "/entry/data/data")
        detector = file.create_group("entry/instrument/detector")
        bits = np.zeros((ROWS, COLS), "<u4")
        bits[9, 9] = 8
        detector["detectorSpecific/pixel_mask"] = bits
        detector["detectorSpecific/photon_energy"] = 12400.0
        detector["detector_distance"] = 3.5
        detector["x_pixel_size"] = 7.5e-5
    with h5py.File(tmp_path / "motors.h5", "w") as file:
        file["y"], file["x"] = y * 1e-6, x * 1e-6
    motors = [f"positions.file={tmp_path / 'motors.h5'}", "positions.slow_key=y"]
    got = run("dectris-master", "x_master.h5", *motors, "positions.fast_key=x")
    np.testing.assert_array_equal(got.data, expected(frames, (bits == 0).astype("u1")))
    with h5py.File(tmp_path / "out.ptyd") as file:
        meta = file["meta"]
        assert meta["energy"][()] == pytest.approx(12.4) and meta["distance"][()] == 3.5
        np.testing.assert_allclose(meta["psize"], [7.5e-5, 7.5e-5])


def test_a_preset_is_printed_to_be_copied(ptystream):
    assert "dectris-master" in ptystream("preset").stdout.split()
    assert 'name = "hdf5"' in ptystream("preset", "cxi").stdout
    assert "did you mean 'cxi'" in ptystream("preset", "cxx", expect=2).stderr


@pytest.mark.parametrize("how", ["exact", "fast", "compat", "workers"])
def test_frames_are_normalised_by_their_own_value(ptystream, config, tmp_path, how):
    frames = frames_of(10)
    dark = np.full((ROWS, COLS), 2.0)
    path = tmp_path / "raw.h5"
    write(path, frames, chunks=(1, ROWS, COLS), compression="gzip")
    i0 = np.linspace(90.0, 110.0, 10)
    i0[6] = 500.0
    with h5py.File(path, "a") as file:
        file["entry/i0"], file["entry/dark"] = i0, dark
    data = block(path, normalization={"key": "entry/i0", "sigma": 2.0})
    data["darkfield"] = {"key": "entry/dark"}
    pipeline = {"frames_per_chunk": 4}
    if how == "fast":
        pipeline |= {"arithmetic": "fast", "dtype": "float32"}
    if how == "compat":
        pipeline |= {"compat": "ptypy"}
    if how == "workers":
        data["load_parallel"] = "all"
    said = ptystream("run", config(data, pipeline)).stdout
    assert "1 frames are not normalised" in said
    mean, std = i0.mean(), i0.std()
    factor = np.where(abs(i0 - mean) < 2.0 * std, mean / i0, 1.0)[:, None, None]
    corrected = np.clip(frames - dark, 0.0, None)
    if how == "compat":
        wanted = (corrected.astype("<u2") * factor).astype("<u2")
    else:
        wanted = corrected * factor
    got = read(tmp_path / "out.ptyd")
    rtol = 1e-6 if how == "fast" else 0
    np.testing.assert_allclose(got.data, expected(wanted), rtol=rtol)


def test_the_reference_of_a_normalisation_may_be_a_value(ptystream, config, tmp_path):
    frames = frames_of(6)
    path = tmp_path / "raw.h5"
    write(path, frames)
    with h5py.File(path, "a") as file:
        file["entry/i0"] = np.array([1.0, 2.0, 4.0, 2.0, 1.0, 2.0])
        file["entry/short"] = np.ones(5)
        file["entry/zero"] = np.array([1.0, 0.0, 1.0, 1.0, 1.0, 1.0])
    data = block(path, normalization={"key": "entry/i0", "reference": 8.0, "sigma": 10.0})
    data["frameorder"] = {"indices": [2, 0]}
    ptystream("run", config(data), "--quiet")
    chosen = frames[[2, 0]] * np.array([2.0, 8.0])[:, None, None]
    np.testing.assert_array_equal(read(tmp_path / "out.ptyd").data, expected(chosen))
    for key, words in [("short", "one value for each of 6 frames"), ("zero", "scan point 1")]:
        bad = block(path, normalization={"key": f"entry/{key}"})
        assert words in ptystream("run", config(bad), "--fresh", expect=3).stderr
