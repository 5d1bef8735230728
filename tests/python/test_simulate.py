"""`ptystream simulate`: a scan published as instruments would, read by pyzmq, hdf5plugin and the pipeline."""

import json
import subprocess
import time

import h5py
import numpy as np
import pytest
import zmq

from instruments import decoded
from ptyd_reader import EOS, WAIT, PtydReader, read, stack



class Simulation:
    def __init__(self, ptystream, *args):
        self.process = subprocess.Popen(
            [str(ptystream.path), "simulate", *map(str, args)],
            cwd=ptystream.folder,
            env=ptystream.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def bound(self):
        for line in self.process.stderr:
            if line.startswith("bound "):
                return line.split()[1]
        raise AssertionError(f"it never bound: {self.process.wait(10)}")

    def end(self):
        out, err = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, err
        return out


def scan(tmp_path, n, **more):
    data = {"name": "moonflower", "num_frames": n, "shape": 64, "dtype": "uint16", **more}
    data.update(photons=1e7, density=0.3, seed=4)
    (tmp_path / "sent.json").write_text(json.dumps({"data": data}))
    return tmp_path / "sent.json"


def test_what_it_sends_is_what_the_scan_holds(ptystream, tmp_path):
    n = 9
    path = scan(tmp_path, n)
    address = f"ipc://{tmp_path}/d"
    sent = Simulation(ptystream, path, "--as", "simplon", "--bind", address, "--lose", 4)
    assert sent.bound() == address
    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        socket.rcvtimeo = 20_000
        socket.connect(address)
        got = [socket.recv_multipart() for _ in range(1 + n - 2 + 1)]
    assert "7 of 9 frames" in sent.end()
    assert json.loads(got[0][1])["nimages"] == n
    numbers = [json.loads(parts[0])["frame"] for parts in got[1:-1]]
    assert numbers == [0, 1, 2, 4, 5, 6, 8]
    assert json.loads(got[-1][0])["htype"] == "dseries_end-1.0"
    # The same scan through the pipeline, whole frames.
    ptystream("run", path, "--set", "data.dfile=whole.ptyd", "--quiet")
    frames = read(tmp_path / "whole.ptyd").data
    for parts in got[1:-1]:
        head = json.loads(parts[1])
        image = decoded(parts[2], head["shape"][::-1], "<u2", tmp_path)
        np.testing.assert_array_equal(image, frames[json.loads(parts[0])["frame"]])


@pytest.mark.parametrize(
    ("detector", "positions", "flags"),
    [
        ("simplon", "contrast", []),
        ("simplon", "panda", ["--uncompressed"]),
        ("stream2", "contrast", ["--uncompressed"]),
        ("stream2", "panda", ["--rate", 400]),
    ],
)
def test_a_rehearsal_makes_the_file_of_the_scan(
    ptystream, config, tmp_path, detector, positions, flags
):
    n = 120
    path = scan(tmp_path, n, model="raster")
    place = "tcp://127.0.0.1:0" if positions == "panda" else f"ipc://{tmp_path}/p"
    sent = Simulation(
        ptystream, path, "--as", detector, "--bind", f"ipc://{tmp_path}/d",
        "--positions", positions, "--positions-bind", place, *flags,
    )
    address, place = sent.bound(), sent.bound()
    names = {"contrast": ("sy", "sx", "index"), "panda": ("Y.VAL", "X.VAL", "INDEX.OUT")}
    slow, fast, index = names[positions]
    data = {
        "name": detector,
        "address": address,
        "positions": {
            "kind": positions, "address": place, "slow": slow, "fast": fast, "index": index,
            "unit": "um",
        },
        "shape": 64,
        "auto_center": False,
        "dfile": "live.ptyd",
        "save": "link",
    }
    ptystream("run", config(data), "--quiet", "--report", "report.json")
    assert f"{n} of {n} frames" in sent.end()
    ptystream("run", path, "--set", "data.dfile=whole.ptyd", "--quiet")
    live, whole = read(tmp_path / "live.ptyd"), read(tmp_path / "whole.ptyd")
    np.testing.assert_array_equal(live.data, whole.data)
    np.testing.assert_allclose(live.positions, whole.positions, rtol=1e-12, atol=1e-18)
    latency = json.loads((tmp_path / "report.json").read_text())["latency"]
    assert latency["frames"] == n
    assert 0 < latency["p50_secs"] <= latency["p99_secs"] <= latency["max_secs"]


def test_a_slow_scan_is_seen_before_its_chunk_is_full(ptystream, config, tmp_path):
    n = 40
    path = scan(tmp_path, n, model="raster")
    sent = Simulation(
        ptystream, path, "--as", "simplon", "--bind", f"ipc://{tmp_path}/d", "--rate", 20,
        "--positions", "contrast", "--positions-bind", f"ipc://{tmp_path}/p",
    )
    address, place = sent.bound(), sent.bound()
    data = {
        "name": "simplon",
        "address": address,
        "positions": {
            "kind": "contrast", "address": place, "slow": "sy", "fast": "sx", "index": "index",
            "unit": "um",
        },
        "shape": 64,
        "auto_center": False,
        "dfile": "live.ptyd",
        "save": "link",
    }
    pipeline = {"frames_per_chunk": 30, "flush_after_secs": 0.2, "publish_interval_secs": 0.0}
    process = ptystream.start("run", config(data, pipeline), "--quiet", "--report", "report.json")
    deadline = time.monotonic() + 60
    while not (tmp_path / "live.ptyd").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    # It follows from the first frames on, long before 30 have come.
    reader, chunks = PtydReader(tmp_path / "live.ptyd"), []
    first = reader.auto(n)
    while first is WAIT:
        first = reader.auto(n)
    assert len(first.data) < 30
    chunks.append(first)
    while True:
        assert time.monotonic() < deadline, "the reader never came to the end"
        got = reader.auto(n)
        if got is EOS:
            break
        if got is not WAIT:
            chunks.append(got)
        time.sleep(0.01)
    ptystream.finish(process)
    assert f"{n} of {n} frames" in sent.end()
    ptystream("run", path, "--set", "data.dfile=whole.ptyd", "--quiet")
    whole, live = read(tmp_path / "whole.ptyd"), stack(chunks)
    np.testing.assert_array_equal(live.data, whole.data)
    np.testing.assert_allclose(live.positions, whole.positions, rtol=1e-12, atol=1e-18)
    with h5py.File(tmp_path / "live.ptyd") as file:
        spans = file["ptystream/chunks"]
        rows = spans["count"][()]
        np.testing.assert_array_equal(spans["first"][()], np.cumsum(rows) - rows)
        assert rows.sum() == n and len(rows) > 4 and rows.max() < 30
        # A flushed chunk goes no further than a full one would.
        assert 30 in np.cumsum(rows)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["latency"]["frames"] == n and report["chunks"] == len(rows)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["live.json", "--as", "simplon"], "is live itself"),
        (["float.json", "--as", "stream2"], "float32"),
        (["--as", "eiger"], "simplon"),
        (["sent.json", "--as", "simplon", "--bind", "nonsense"], "nonsense"),
    ],
)
def test_what_cannot_be_sent_is_named(ptystream, tmp_path, args, words):
    scan(tmp_path, 3)
    for name, more in [("live", {"live": True}), ("float", {"dtype": "float32"})]:
        data = {"name": "moonflower", "num_frames": 3, "shape": 64, **more}
        (tmp_path / f"{name}.json").write_text(json.dumps({"data": data}))
    done = ptystream("simulate", *args, expect=2)
    assert words in done.stderr, done.stderr


def test_it_ends_when_it_is_told_to_though_nobody_comes(ptystream, tmp_path):
    scan(tmp_path, 3)
    process = ptystream.start("simulate", "sent.json", "--as", "simplon", "--bind", f"ipc://{tmp_path}/d")
    ptystream.wait_said(process, "bound")
    process.terminate()
    assert "nothing was sent" in ptystream.finish(process, expect=0)
