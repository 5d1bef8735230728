"""A .ptyd as raw data: our own, and those of scripts that follow the tree and nothing else."""

import h5py
import numpy as np
import pytest

from ptyd_reader import read

COUNT, SIZE = 9, 16


def pieces():
    rng = np.random.default_rng(8)
    data = rng.poisson(20.0, (COUNT, SIZE, SIZE)).astype("<u2")
    weights = np.ones((COUNT, SIZE, SIZE), "u1")
    weights[:, 3, 4] = 0
    return data, weights, rng.uniform(-1e-5, 1e-5, (COUNT, 2))


def write(path, names=("data", "weights", "positions"), meta=None):
    """A file without attributes, as a short script writes it; chunks of 4."""
    data, weights, positions = pieces()
    arrays = {"data": data, "weights": weights, "positions": positions}
    meta = {"energy": 6.2, "distance": 2.0, "psize": 5e-5, "num_frames": COUNT} | (meta or {})
    with h5py.File(path, "w") as file:
        for n, start in enumerate(range(0, COUNT, 4)):
            for name in names:
                file[f"chunks/{n}/{name}"] = arrays[name][start : start + 4]
        for name, value in meta.items():
            file[f"meta/{name}"] = value


def block(path, **more):
    return {"name": "ptyd", "source": str(path), "dfile": "out.ptyd", "save": "append"} | more


def test_a_script_s_file_is_taken_as_it_is(ptystream, config, tmp_path):
    write(tmp_path / "in.ptyd")
    ptystream("run", config(block(tmp_path / "in.ptyd"), {"frames_per_chunk": 5}), "--quiet")
    data, weights, positions = pieces()
    got = read(tmp_path / "out.ptyd")
    np.testing.assert_array_equal(got.data, data)
    np.testing.assert_array_equal(got.weights, weights > 0)
    np.testing.assert_array_equal(got.positions, positions)
    with h5py.File(tmp_path / "out.ptyd") as file:
        assert (file["meta/energy"][()], file["meta/distance"][()]) == (6.2, 2.0)
        assert [len(file[f"chunks/{n}/data"]) for n in "01"] == [5, 4]


def test_weights_and_values_may_be_missing(ptystream, config, tmp_path):
    write(tmp_path / "in.ptyd", ("data", "positions"), {"energy": "None", "label": "None"})
    data = block(tmp_path / "in.ptyd", energy=7.1, rebin=2)
    ptystream("run", config(data), "--quiet")
    got = read(tmp_path / "out.ptyd")
    assert got.data.shape == (COUNT, SIZE // 2, SIZE // 2) and got.weights.all()
    with h5py.File(tmp_path / "out.ptyd") as file:
        assert file["meta/energy"][()] == 7.1
        np.testing.assert_array_equal(file["meta/psize"], [1e-4, 1e-4])


def test_what_is_not_there_is_named(ptystream, config, tmp_path):
    write(tmp_path / "in.ptyd", ("data", "weights"))
    said = ptystream("run", config(block(tmp_path / "in.ptyd")), expect=2).stderr
    assert "has no positions" in said and "positions_theory" in said
    said = ptystream("run", config(block(tmp_path / "no.ptyd")), expect=3).stderr
    assert "no.ptyd" in said and "does not exist" in said
    with h5py.File(tmp_path / "in.ptyd", "a") as file:
        del file["chunks/1/weights"]
    said = ptystream("run", config(block(tmp_path / "in.ptyd")), expect=3).stderr
    assert "2 of 3 chunks have weights" in said


def test_without_a_source_the_file_is_only_read(ptystream, config, tmp_path):
    write(tmp_path / "in.ptyd")
    before = (tmp_path / "in.ptyd").read_bytes()
    written = {"name": "ptyd", "dfile": "in.ptyd", "save": "append"}
    said = ptystream("run", config(written), expect=2).stderr
    assert "data.source" in said and "must not be written" in said
    for plain in [{}, {"save": None}]:
        said = ptystream("run", config({"name": "PtydScan", "dfile": "in.ptyd", **plain})).stdout
        assert "frames       9" in said
        assert (tmp_path / "in.ptyd").read_bytes() == before


@pytest.mark.parametrize("save", ["link", "append", "merge"])
def test_our_own_files_are_prepared_once_more(ptystream, config, tmp_path, save):
    first = {
        "name": "moonflower",
        "num_frames": 17,
        "raw_shape": 40,
        "shape": 32,
        "save": save,
        "dfile": "first.ptyd",
    }
    ptystream("run", config(first, {"frames_per_chunk": 5, "compression": "bslz4"}), "--quiet")
    again = block(tmp_path / "first.ptyd", orientation=3)
    ptystream("run", config(again), "--quiet")
    a, b = read(tmp_path / "first.ptyd"), read(tmp_path / "out.ptyd")
    np.testing.assert_array_equal(b.data, a.data[:, ::-1, ::-1])
    np.testing.assert_array_equal(b.positions, a.positions)
