"""Detectors that nobody here wrote: LiberTEM's simulator, Diamond's tickit-devices; and a scan as at a beamline."""

import json
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
import zmq

from instruments import Publisher, block, crop, decoded, dumped, messages
from ptyd_reader import EOS, WAIT, PtydReader, read, stack

SHAPE = (2167, 2070)


def dump(path, found):
    """Writes messages as the simulator reads them: each part with its length."""
    with open(path, "wb") as file:
        for parts in found:
            for part in parts:
                file.write(struct.pack("<Q", len(part)) + part)


class LiberTem:
    """LiberTEM's simulator of a Dectris detector, over a recording."""

    def __init__(self, path):
        libertem = pytest.importorskip("libertem_dectris")
        self.sim = libertem.DectrisSim(
            uri="tcp://127.0.0.1", filename=str(path), dwelltime=None, random_port=True
        )
        self.address = self.sim.get_uri()

    def send(self, frames=None):
        def work():
            self.sim.send_headers()
            self.sim.send_frames(frames)
            self.sim.send_footer()

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread


def test_libertems_simulator_is_a_detector(
    ptystream, config, tmp_path, recordings
):
    recording = recordings / "eiger4m_v1.zmqdump"
    images = [p for p in messages(recording) if b"dimage-1.0" in p[0]]
    frames = [decoded(p[2], SHAPE, "<u2", tmp_path) for p in images]
    dump(tmp_path / "scan.dump", messages(recording))
    detector = LiberTem(tmp_path / "scan.dump")
    thread = detector.send(3)
    data = block("simplon", detector.address, 3, shape=1024)
    ptystream("run", config(data), "--quiet")
    thread.join(60)
    np.testing.assert_array_equal(
        read(tmp_path / "out.ptyd").data, [crop(f, (1024, 1024)) for f in frames]
    )


def test_a_scan_of_a_4m_detector_is_followed_with_three_frames_lost(
    ptystream, config, tmp_path, recordings
):
    n, lost = 200, {17, 90, 181}
    sent = messages(recordings / "eiger4m_v1.zmqdump")
    images = [p for p in sent if b"dimage-1.0" in p[0]]
    frames = [decoded(p[2], SHAPE, "<u2", tmp_path) for p in images]
    series = json.loads(images[0][0])["series"]
    begin = []
    for parts in sent[: sent.index(images[0])]:
        settings = json.loads(parts[0])
        if "nimages" in settings:
            settings.update(nimages=n, ntrigger=1, trigger_mode="exts")
            parts = [json.dumps(settings).encode(), *parts[1:]]
        begin.append(parts)
    found = list(begin)
    for k in range(n):
        head = {"htype": "dimage-1.0", "series": series, "frame": k, "hash": ""}
        if k not in lost:
            found.append([json.dumps(head).encode(), *images[k % 3][1:]])
    found.append(sent[-1])
    dump(tmp_path / "scan.dump", found)

    detector, publisher = LiberTem(tmp_path / "scan.dump"), Publisher(tmp_path)
    points = [
        {"status": "running", "i": k, "y": float(k // 20), "x": 0.5 * (k % 20)} for k in range(n)
    ]
    contrast = dumped([{"status": "started"}, *points, {"status": "finished"}])
    threads = [publisher.send(contrast, pause=0.001), detector.send(n - len(lost))]
    positions = {"kind": "contrast", "address": publisher.address, "slow": "y", "fast": "x"}
    positions |= {"join": "index", "index": "i", "unit": "um"}
    data = block("simplon", detector.address, n, shape=256, positions=positions, num_frames=n)
    del data["positions_theory"]
    path = config(data, {"frames_per_chunk": 16, "follow": "ptypy", "bad_values": [65535]})
    process = ptystream.start("run", path, "--quiet")
    # As PtydScan: it renumbers, polls, and reads num_frames once.
    deadline = time.monotonic() + 100
    while not (tmp_path / "out.ptyd").exists():
        assert time.monotonic() < deadline and process.poll() in (None, 5)
        time.sleep(0.01)
    reader, chunks = PtydReader(tmp_path / "out.ptyd"), []
    while True:
        assert time.monotonic() < deadline, "the reader never came to the end"
        got = reader.auto(16)
        if got is EOS:
            break
        if got is WAIT:
            time.sleep(0.02)
        else:
            chunks.append(got)
    ptystream.finish(process, expect=5)
    for thread in threads:
        thread.join(60)
    publisher.close()
    got = stack(chunks)
    assert len(got.data) == n
    np.testing.assert_array_equal(~got.weights.any(axis=(1, 2)), [k in lost for k in range(n)])
    np.testing.assert_allclose(got.positions, [[p["y"] * 1e-6, p["x"] * 1e-6] for p in points])
    for k in range(n):
        if k not in lost:
            image = crop(frames[k % 3], (256, 256))
            bad = image == 65535
            np.testing.assert_array_equal(got.data[k], np.where(bad, 0, image))
            np.testing.assert_array_equal(got.weights[k] > 0, ~bad)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait_for_connections(port, count):
    """Waits until so many connections to a port of this machine are open."""
    deadline = time.monotonic() + 60
    while True:
        rows = [line.split() for line in open("/proc/net/tcp").readlines()[1:]]
        # Neither the listener (0A) nor what is only remembered (06).
        is_open = [row for row in rows if int(row[1][-4:], 16) == port and row[3] not in ("0A", "06")]
        if len(is_open) == count:
            return
        assert time.monotonic() < deadline, is_open
        time.sleep(0.02)


class Tickit:
    """Diamond's simulation of an Eiger, by its REST interface."""

    # What the first and the last message of a series hold.
    ENDS = {"legacy": (b"dheader-1.0", b"dseries_end-1.0"), "cbor": (b"start", b"end")}

    def __init__(self, folder):
        pytest.importorskip("tickit_devices")
        self.ports = [free_port() for _ in range(3)]
        rest, legacy, cbor = self.ports
        (folder / "eiger.yaml").write_text(
            "- type: tickit_devices.eiger.Eiger\n  name: eiger\n  inputs: {}\n"
            f"  host: 127.0.0.1\n  port: {rest}\n  stream_host: 127.0.0.1\n"
            f"  stream_legacy_port: {legacy}\n  stream_cbor_port: {cbor}\n"
        )
        self.log = open(folder / "tickit.log", "wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tickit", "all", "eiger.yaml"],
            cwd=folder,
            stdout=self.log,
            stderr=self.log,
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                self.get("detector/api/1.8.0/status/state")
                return
            except OSError:
                assert self.process.poll() is None, (folder / "tickit.log").read_text()
                assert time.monotonic() < deadline, (folder / "tickit.log").read_text()
                time.sleep(0.2)

    def url(self, path):
        return f"http://127.0.0.1:{self.ports[0]}/{path}"

    def get(self, path):
        with urllib.request.urlopen(self.url(path), timeout=20) as answer:
            return json.loads(answer.read())

    def put(self, path, value=None):
        data = b"" if value is None else json.dumps({"value": value}).encode()
        request = urllib.request.Request(self.url(path), data, method="PUT")
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()

    def settle(self, port, stream):
        """Sends empty series to us until one has come whole.

        Its socket connects to itself first, and what it sends before that has failed is lost.
        """
        begin, end = self.ENDS[stream]
        api, deadline = "detector/api/1.8.0", time.monotonic() + 60
        with zmq.Context() as context, context.socket(zmq.PULL) as pull:
            pull.connect(f"tcp://127.0.0.1:{port}")
            got = b""
            while not (begin in got and end in got[got.index(begin) :]):
                assert time.monotonic() < deadline, "no series comes whole"
                self.put(f"{api}/command/arm")
                self.put(f"{api}/command/disarm")
                got = b""
                while pull.poll(500):
                    got += b"".join(pull.recv_multipart())
        # What it sends to somebody who has gone, before it knows, is lost too.
        wait_for_connections(port, 0)

    def close(self):
        self.process.terminate()
        self.process.wait(20)
        self.log.close()


@pytest.fixture(scope="module")
def tickit(tmp_path_factory):
    one = Tickit(tmp_path_factory.mktemp("tickit"))
    yield one
    one.close()


@pytest.mark.parametrize(
    ("name", "port", "stream", "detail"),
    [
        ("simplon", 1, "legacy", "basic"),
        ("simplon", 1, "legacy", "all"),
        ("stream2", 2, "cbor", "basic"),
        ("stream2", 2, "cbor", "all"),
    ],
)
def test_tickits_eiger_is_a_detector(
    ptystream, config, tmp_path, tickit, name, port, stream, detail
):
    n = 4
    api = "detector/api/1.8.0"
    tickit.put(f"{api}/command/initialize")
    tickit.put("stream/api/1.8.0/config/mode", "enabled")
    tickit.put("stream/api/1.8.0/config/format", stream)
    tickit.put("stream/api/1.8.0/config/header_detail", detail)
    for key, value in [("nimages", n), ("ntrigger", 1), ("trigger_mode", "ints"), ("frame_time", 0.05), ("count_time", 0.05)]:
        tickit.put(f"{api}/config/{key}", value)
    address = f"tcp://127.0.0.1:{tickit.ports[port]}"
    data = block(name, address, n, shape=256, dfile=f"{name}.ptyd")
    # Its own mask and flatfield are all zeros, or no arrays at all.
    tickit.settle(tickit.ports[port], stream)
    process = ptystream.start("run", config(data))
    wait_for_connections(tickit.ports[port], 1)

    def acquire():
        tickit.put(f"{api}/command/arm")
        tickit.put(f"{api}/command/trigger")

    thread = threading.Thread(target=acquire, daemon=True)
    thread.start()
    text = ptystream.finish(process)
    thread.join(30)
    got = read(tmp_path / f"{name}.ptyd")
    assert got.data.shape == (n, 256, 256), text
    # It sends the same picture again and again: a real one, not empty.
    assert got.data.any() and all((frame == got.data[0]).all() for frame in got.data)
