"""Files that appear one by one while the scan runs: images written by numpy, fabio and tifffile, followed to the end."""

import threading
import time

import h5py
import hdf5plugin
import numpy as np
import pytest

from images import write_cbf, write_edf, write_npy, write_tiff
from instruments import Publisher, dumped
from ptyd_reader import read

WRITE = {"npy": write_npy, "tif": write_tiff, "edf": write_edf, "cbf": write_cbf}

N, ROWS, COLS = 30, 40, 40


def pixels(dtype="<u2", n=N):
    return np.random.default_rng(5).poisson(9.0, (n, ROWS, COLS)).astype(dtype)


def where(n=N):
    return np.random.default_rng(6).uniform(-20, 20, (n, 2))


def bytes_of(path, ending, image):
    """What a file holds, by writing it elsewhere."""
    other = path.parent.parent / f"whole.{ending}"
    WRITE[ending](other, image)
    return other.read_bytes()


class Acquisition:
    """Writes files in a thread: each in two pieces, as a slow disk would."""

    def __init__(self, files, pause=0.01, torn=0.02):
        def work():
            for path, content in files:
                with open(path, "wb") as file:
                    file.write(content[: len(content) // 2])
                    file.flush()
                    time.sleep(torn)
                    file.write(content[len(content) // 2 :])
                time.sleep(pause)

        self.thread = threading.Thread(target=work)
        self.thread.start()

    def join(self):
        self.thread.join(60)


@pytest.fixture
def raw(tmp_path):
    np.save(tmp_path / "positions.npy", where())
    folder = tmp_path / "raw"
    folder.mkdir()
    return folder


def block(name, path, **more):
    data = {
        "name": name,
        "path": str(path),
        "live": True,
        "num_frames": N,
        "positions": {"file": "positions.npy", "unit": "um"},
        "auto_center": False,
        "shape": [ROWS, COLS],
        "psize": 5e-5,
        "distance": 2.0,
        "energy": 9.0,
        "idle_secs": 20,
        "late_secs": 5,
        "dfile": "out.ptyd",
        "save": "link",
    }
    data.update(more)
    return {key: value for key, value in data.items() if value is not None}


def named(raw, ending, frames, first=1):
    names = [raw / f"scan7_{k:03}.{ending}" for k in range(first, first + len(frames))]
    return [(path, bytes_of(path, ending, frame)) for path, frame in zip(names, frames)]


@pytest.mark.parametrize(
    ("name", "ending", "dtype"),
    [("npy", "npy", "<u2"), ("tiff", "tif", "<u2"), ("edf", "edf", "<u2"), ("cbf", "cbf", "<i4")],
)
def test_each_file_is_taken_when_it_is_whole(ptystream, config, raw, name, ending, dtype):
    frames = pixels(dtype)
    process = ptystream.start("run", config(block(name, raw), {"frames_per_chunk": 8}), "--quiet")
    time.sleep(0.2)
    writer = Acquisition(named(raw, ending, frames))
    ptystream.finish(process)
    writer.join()
    got = read(raw.parent / "out.ptyd")
    np.testing.assert_array_equal(got.data, frames)
    np.testing.assert_allclose(got.positions, where() * 1e-6)


def test_files_of_several_frames_and_a_last_one_of_fewer(ptystream, config, raw):
    frames = pixels()
    for name, ending in [("npy", "npy"), ("tiff", "tif"), ("edf", "edf")]:
        stacks = [frames[k : k + 8] for k in range(0, N, 8)]
        for old in raw.iterdir():
            old.unlink()
        writer = Acquisition(named(raw, ending, stacks, first=0), pause=0.05)
        data = block(
            name, raw / "scan7_*", num_frames=None, dfile=f"{name}.ptyd", late_secs=0.5, idle_secs=2
        )
        ptystream("run", config(data), "--quiet")
        writer.join()
        np.testing.assert_array_equal(read(raw.parent / f"{name}.ptyd").data, frames)


@pytest.mark.parametrize("listed", [False, True])
def test_a_scan_of_unknown_length_goes_on_until_nothing_comes(ptystream, config, raw, listed):
    frames = pixels(n=6)
    np.save(raw.parent / "positions.npy", where(6))
    files = named(raw, "npy", frames)
    # All names are known of a list: it ends with the last one.
    data = block("npy", raw, num_frames=None, idle_secs=20 if listed else 2)
    if listed:
        data["path"] = [str(path) for path, _ in files]
    process = ptystream.start("run", config(data), "--quiet")
    began = time.monotonic()
    writer = Acquisition(files, pause=0.5)
    ptystream.finish(process)
    assert time.monotonic() - began < 15
    writer.join()
    np.testing.assert_array_equal(read(raw.parent / "out.ptyd").data, frames)


@pytest.mark.parametrize("locking", [True, False])
@pytest.mark.parametrize(
    ("split", "how"),
    [
        (1, {}),
        (7, {}),
        (7, {"chunks": (1, ROWS, COLS), **hdf5plugin.Bitshuffle(cname="lz4")}),
        (10, {"chunks": (5, ROWS, COLS), "compression": "gzip"}),
    ],
)
def test_hdf5_files_that_appear(ptystream, config, raw, split, how, locking):
    frames = pixels()

    def work():
        for k in range(0, N, split):
            part = frames[k : k + split]
            # Room is made first, then frame after frame is written, in the file's own place.
            with h5py.File(raw / f"data_{k // split:06}.h5", "w", locking=locking) as file:
                if split == 1:
                    file["entry/frame"] = part[0]
                    continue
                data = file.create_dataset("entry/frame", part.shape, part.dtype, **how)
                for n, frame in enumerate(part):
                    data[n] = frame
                    file.flush()
                    time.sleep(0.03)
            time.sleep(0.01)

    thread = threading.Thread(target=work)
    data = block("hdf5_files", raw, key="entry/frame", late_secs=2)
    process = ptystream.start("run", config(data, {"frames_per_chunk": 8}), "--quiet")
    time.sleep(0.2)
    thread.start()
    ptystream.finish(process)
    thread.join()
    np.testing.assert_array_equal(read(raw.parent / "out.ptyd").data, frames)
    # The same files once more, all there, read by the workers.
    data = block("hdf5_files", raw, key="entry/frame", live=None, dfile="all.ptyd", load_parallel="data")
    data.pop("idle_secs"), data.pop("late_secs")
    assert not thread.is_alive()
    ptystream("run", config(data), "--quiet")
    np.testing.assert_array_equal(read(raw.parent / "all.ptyd").data, frames)


def test_files_out_of_order_are_put_in_order_and_one_that_never_comes_is_a_gap(
    ptystream, config, raw
):
    frames = pixels()
    files = named(raw, "npy", frames)
    order = [0, 1, 2, 4, 3, 6, 5, *range(8, N)]
    writer = Acquisition([files[k] for k in order], pause=0.02)
    done = ptystream("run", config(block("npy", raw, late_secs=1)), "--quiet", expect=5)
    writer.join()
    got = read(raw.parent / "out.ptyd")
    kept = [k for k in range(N) if k != 7]
    np.testing.assert_array_equal(got.data[kept], frames[kept])
    assert not got.weights[7].any() and got.weights[kept].all()
    np.testing.assert_allclose(got.positions, where() * 1e-6)
    assert "scan7_008.npy" in done.stdout + done.stderr


def test_positions_may_come_as_a_stream(ptystream, config, raw):
    frames = pixels()
    publisher = Publisher(raw.parent)
    points = [{"status": "running", "index": k, "y": y, "x": x} for k, (y, x) in enumerate(where())]
    threads = [
        publisher.send(dumped(points), pause=0.005),
        Acquisition(named(raw, "npy", frames, first=0)),
    ]
    positions = {
        "kind": "contrast", "address": publisher.address, "slow": "y", "fast": "x",
        "index": "index", "unit": "um",
    }
    ptystream("run", config(block("npy", raw, positions=positions)), "--quiet")
    for thread in threads:
        thread.join()
    publisher.close()
    got = read(raw.parent / "out.ptyd")
    np.testing.assert_array_equal(got.data, frames)
    np.testing.assert_allclose(got.positions, where() * 1e-6)


def test_a_list_that_grows_names_frames_and_positions(ptystream, config, raw):
    frames, points = pixels(), where() * 1e-6
    done = threading.Event()

    def work():
        with open(raw / "positions.txt", "w") as list_:
            list_.write("# file y x\n")
            for k, (frame, (y, x)) in enumerate(zip(frames, points)):
                # The line is there before the frame, and comes in two pieces.
                line = f"f{k}.npy {float(y)!r} {float(x)!r}\n"
                list_.write(line[:9])
                list_.flush()
                time.sleep(0.005)
                list_.write(line[9:])
                list_.flush()
                time.sleep(0.005)
                if k != 11:
                    np.save(raw / f"f{k}.npy", frame)
        done.set()

    thread = threading.Thread(target=work)
    data = block("numpy", raw, positions=None, late_secs=0.7)
    process = ptystream.start("run", config(data, {"frames_per_chunk": 7}), "--quiet")
    time.sleep(0.2)
    thread.start()
    text = ptystream.finish(process, expect=5)
    thread.join()
    assert done.is_set() and "f11.npy" in text + (raw.parent / "out.ptyd.report.json").read_text()
    got = read(raw.parent / "out.ptyd")
    kept = [k for k in range(N) if k != 11]
    np.testing.assert_array_equal(got.data[kept], frames[kept])
    assert not got.weights[11].any()
    np.testing.assert_array_equal(got.positions, points)


def test_it_goes_on_where_it_was_killed(ptystream, config, raw):
    frames = pixels()
    files = named(raw, "tif", frames)
    path = config(block("tiff", raw), {"frames_per_chunk": 6})
    writer = Acquisition(files[:14])
    process = ptystream.start("run", path, "--quiet")
    deadline = time.monotonic() + 60
    while not (raw.parent / "out.ptyd").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    writer.join()
    writer = Acquisition(files[14:])
    ptystream("run", path, "--quiet")
    writer.join()
    np.testing.assert_array_equal(read(raw.parent / "out.ptyd").data, frames)


def test_a_number_before_the_first_one_ends_the_scan(ptystream, config, raw):
    files = named(raw, "npy", pixels(), first=0)
    writer = Acquisition(files[1:5])
    process = ptystream.start("run", config(block("npy", raw)), "--quiet")
    writer.join()
    time.sleep(1.5)
    Acquisition(files[:1]).join()
    text = ptystream.finish(process, expect=3)
    assert "scan7_000.npy" in text and "scan7_001.npy" in text, text


def test_what_is_wrong_is_said(ptystream, config, raw):
    data = block("npy", raw, wait_secs=0.5)
    done = ptystream("run", config(data), expect=3)
    assert "wait_secs" in done.stderr and str(raw) in done.stderr, done.stderr
    np.save(raw / "nonumber.npy", pixels()[0])
    done = ptystream("run", config(data), expect=3)
    assert "nonumber.npy" in done.stderr and "number" in done.stderr, done.stderr
    (raw / "nonumber.npy").unlink()
    np.save(raw / "f1.npy", pixels()[0])
    stream = {"kind": "contrast", "address": "ipc:///tmp/none", "slow": "y", "fast": "x"}
    done = ptystream("run", config(block("npy", raw, live=False, positions=stream)), expect=2)
    assert "positions.kind" in done.stderr and "live" in done.stderr, done.stderr
    (raw / "positions.txt").write_text("a.npy 0.0\n")
    np.save(raw / "a.npy", pixels()[0])
    done = ptystream("run", config(block("numpy", raw, positions=None)), expect=3)
    assert "positions.txt:1" in done.stderr, done.stderr
    # Fewer than are wanted: what came is kept.
    for name in ("a.npy", "f1.npy", "positions.txt"):
        (raw / name).unlink()
    writer = Acquisition(named(raw, "npy", pixels()[:12]))
    done = ptystream("run", config(block("npy", raw, idle_secs=1)), "--quiet", expect=7)
    writer.join()
    assert "after 12 of 30 frames" in done.stdout + done.stderr, done.stderr
    np.testing.assert_array_equal(read(raw.parent / "out.ptyd").data, pixels()[:12])
