"""HDF5 files that are still being written: h5py's SWMR writer, followed from the first frame to the last."""

import threading
import time

import h5py
import hdf5plugin
import numpy as np
import pytest

from instruments import pixels
from ptyd_reader import read



def block(**more):
    data = {
        "name": "swmr",
        "intensities": {"file": "scan.h5", "key": "data"},
        "positions": {
            "slow_key": "y",
            "fast_key": "x",
            "slow_multiplier": 1e-6,
            "fast_multiplier": 1e-6,
        },
        "auto_center": False,
        "dfile": "out.ptyd",
        "save": "link",
        "idle_secs": 20,
    }
    data.update(more)
    return data


class Writer:
    """Writes a scan in SWMR mode, in a thread of its own."""

    def __init__(self, path, frames, grow, live, late=0.0, pause=0.01, stop=None):
        n = len(frames)
        how = hdf5plugin.Bitshuffle(cname="lz4")
        size = 0 if grow else n
        most = None if grow else n

        def work():
            time.sleep(late)
            with h5py.File(path, "w", libver=("v110", "v110")) as file:
                shape = (size, *frames.shape[1:])
                data = file.create_dataset(
                    "data", shape, frames.dtype, chunks=(1, *shape[1:]), maxshape=(most, *shape[1:]), **how
                )
                y = file.create_dataset("y", (size,), "f8", maxshape=(most,), chunks=(16,))
                x = file.create_dataset("x", (size,), "f8", maxshape=(most,), chunks=(16,))
                keys = file.create_dataset("live", (n,), "i4", chunks=(16,)) if live else None
                file["mask"] = np.ones(frames.shape[1:], "u1")
                file.swmr_mode = True
                for k in range(stop or n):
                    if grow:
                        for dataset in (data, y, x):
                            dataset.resize(k + 1, axis=0)
                    data[k] = frames[k]
                    y[k], x[k] = k + 1, 2 * k
                    for dataset in (data, y, x):
                        dataset.flush()
                    if keys is not None:
                        keys[k] = k + 1
                        keys.flush()
                    time.sleep(pause)

        self.thread = threading.Thread(target=work)
        self.thread.start()

    def join(self):
        self.thread.join()


@pytest.mark.parametrize(("grow", "live"), [(True, False), (False, True), (True, True)])
def test_a_file_is_followed_while_it_grows(ptystream, config, tmp_path, grow, live):
    frames = pixels(40, (64, 64))
    writer = Writer(tmp_path / "scan.h5", frames, grow, live, late=0.3)
    data = block(num_frames=40, mask=None)
    data["mask"] = None
    if live:
        data["intensities"]["live_key"] = "live"
    ptystream("run", config(data, {"frames_per_chunk": 16}), "--quiet")
    writer.join()
    got = read(tmp_path / "out.ptyd")
    np.testing.assert_array_equal(got.data, frames)
    np.testing.assert_allclose(got.positions, [[(k + 1) * 1e-6, 2e-6 * k] for k in range(40)])


def test_a_coordinate_that_is_ahead_of_the_other_makes_no_grid(ptystream, config, tmp_path):
    # As a reader sees it that comes while the writer is between the two datasets.
    frames = pixels(8, (64, 64))
    with h5py.File(tmp_path / "scan.h5", "w", libver=("v110", "v110")) as file:
        file.create_dataset("data", data=frames, maxshape=(None, 64, 64))
        file.create_dataset("y", data=np.arange(8.0), maxshape=(None,))
        file.create_dataset("x", data=np.arange(9.0) + 20, maxshape=(None,))
    ptystream("run", config(block(num_frames=8), {"frames_per_chunk": 4}), "--quiet")
    got = read(tmp_path / "out.ptyd")
    np.testing.assert_array_equal(got.data, frames)
    np.testing.assert_allclose(got.positions, [[k * 1e-6, (k + 20) * 1e-6] for k in range(8)])


def test_the_length_is_that_of_a_dataset_that_is_there_before(ptystream, config, tmp_path):
    frames = pixels(24, (64, 64))
    # That of the shape that positions will have, or of room made beforehand that live keys fill.
    for k, (grow, more) in enumerate([(True, {}), (False, {"live_key": "live"})]):
        path = tmp_path / f"scan{k}.h5"
        writer = Writer(path, frames, grow, live=True)
        data = block(dfile=f"out{k}.ptyd")
        data["intensities"] = {"file": path.name, "key": "data", **more}
        if grow:
            data["positions"]["slow_key_with_expected_shape"] = "live"
        ptystream("run", config(data), "--quiet")
        writer.join()
        np.testing.assert_array_equal(read(tmp_path / f"out{k}.ptyd").data, frames)


def test_a_file_that_stops_growing_ends_the_scan(ptystream, config, tmp_path):
    frames = pixels(20, (64, 64))
    writer = Writer(tmp_path / "scan.h5", frames, grow=True, live=False, stop=12)
    data = block(num_frames=20, idle_secs=1.0)
    done = ptystream("run", config(data), expect=7)
    writer.join()
    assert "stopped growing at 12 of 20 frames" in done.stdout + done.stderr
    np.testing.assert_array_equal(read(tmp_path / "out.ptyd").data, frames[:12])


def test_a_file_that_never_comes_is_named(ptystream, config, tmp_path):
    done = ptystream("run", config(block(wait_secs=0.5)), expect=3)
    assert "scan.h5" in done.stderr and "wait_secs" in done.stderr, done.stderr
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["data"] = pixels(3)
        file["y"] = file["x"] = np.zeros(3)
    done = ptystream("run", config(block(wait_secs=0.5, framefilter={"key": "y"})), expect=None)
    assert done.returncode in (2, 3), done.stderr
