"""Detector streams: recordings of real instruments sent by pyzmq, decoded by hdf5plugin."""

import json
import socket
import subprocess
import time

import h5py
import numpy as np
import pytest
import zmq

from instruments import Instrument, Panda, block, cbors, crop, decoded, messages, pixels, v1
from ptyd_reader import read

BSLZ4 = 32008


def test_a_recording_of_an_eiger_4m_goes_through(
    ptystream, config, tmp_path, recordings, instrument
):
    sent = messages(recordings / "eiger4m_v1.zmqdump")
    images = [p for p in sent if b"dimage-1.0" in p[0]]
    shape = json.loads(images[0][1])["shape"][::-1]
    frames = [decoded(p[2], shape, "<u2", tmp_path) for p in images]
    thread = instrument.send(sent)
    data = block("simplon", instrument.address, 3, shape=2048)
    ptystream("run", config(data, {"frames_per_chunk": 2}), "--quiet")
    thread.join()
    got = read(tmp_path / "out.ptyd")
    np.testing.assert_array_equal(got.data, [crop(f, (2048, 2048)) for f in frames])
    assert got.data.dtype == np.uint16


def test_a_recording_of_an_eiger_16m_goes_through(
    ptystream, config, tmp_path, recordings, instrument
):
    cbor2 = pytest.importorskip("cbor2")
    sent = messages(recordings / "eiger16m_stream2.zmqdump")

    def plain(value):
        while isinstance(value, cbor2.CBORTag):
            value = value.value
        return value

    frames = []
    for (message,) in sent:
        content = plain(cbor2.loads(message))
        if content["type"] == "image":
            dims, items = plain(next(iter(content["data"].values())))
            algorithm, _, blob = plain(items)
            assert algorithm == "bslz4"
            frames.append(decoded(blob, dims, "<u2", tmp_path))
    assert len(frames) == 3
    thread = instrument.send(sent)
    ptystream("run", config(block("stream2", instrument.address, 3)), "--quiet")
    thread.join()
    got = read(tmp_path / "out.ptyd")
    np.testing.assert_array_equal(got.data, [crop(f) for f in frames])


def test_damaged_payloads_are_gaps_and_end_nothing(
    ptystream, config, tmp_path, recordings, instrument
):
    sent = messages(recordings / "bad_bslz4_header_v1.zmqdump")
    n = sum(b"dimage-1.0" in p[0] for p in sent)
    thread = instrument.send(sent)
    data = block("simplon", instrument.address, n, shape=None)
    done = ptystream("run", config(data), expect=None)
    thread.join()
    assert done.returncode == 3, done.stderr
    assert "says 0 bytes" in done.stdout + done.stderr, done.stderr


def test_geometry_comes_with_the_stream_and_left_overs_are_dropped(
    ptystream, config, tmp_path, instrument
):
    frames = pixels(12)
    stale = v1(pixels(2) + 1, series=6)[1:]
    sent = v1(frames)
    # Left-overs before, an image twice, and two that overtake each other.
    sent = [*stale, *sent[:3], sent[2], sent[4], sent[3], *sent[5:]]
    thread = instrument.send(sent, pause=0.002)
    ptystream("run", config(block("simplon", instrument.address, 12)), "--quiet")
    thread.join()
    got = read(tmp_path / "out.ptyd")
    np.testing.assert_array_equal(got.data, [crop(f) for f in frames])
    with h5py.File(tmp_path / "out.ptyd") as file:
        assert file["meta/energy"][()] == 8.0
        assert file["meta/distance"][()] == 1.5
        np.testing.assert_allclose(file["meta/psize"][()], 7.5e-5)


def test_frames_that_do_not_come_are_gaps(ptystream, config, tmp_path, instrument):
    frames = pixels(20)
    sent = v1(frames)
    del sent[1 + 7]
    thread = instrument.send(sent)
    done = ptystream("run", config(block("simplon", instrument.address, 20)), expect=5)
    thread.join()
    assert "frame 7" in done.stdout + done.stderr
    got = read(tmp_path / "out.ptyd")
    expected = np.stack([crop(f) for f in frames])
    expected[7] = 0
    np.testing.assert_array_equal(got.data, expected)
    assert not got.weights[7].any() and got.weights[8].all()


def test_a_series_that_ends_early_keeps_what_came(ptystream, config, tmp_path, instrument):
    sent = v1(pixels(20), series=8)
    thread = instrument.send(sent[:11] + sent[-1:])
    data = block("simplon", instrument.address, 20, dfile="short.ptyd")
    done = ptystream("run", config(data), expect=7)
    thread.join()
    assert "after 10 of 20 frames" in done.stdout + done.stderr, done.stderr
    assert len(read(tmp_path / "short.ptyd").data) == 10


def test_several_sockets_make_one_series(ptystream, config, tmp_path):
    frames = pixels(40)
    sent = v1(frames)
    both = [Instrument(tmp_path, "a"), Instrument(tmp_path, "b")]
    threads = [
        both[0].send([sent[0], *sent[1:-1:2], sent[-1]], pause=0.001),
        both[1].send([sent[0], *sent[2:-1:2]], pause=0.003),
    ]
    data = block("simplon", [one.address for one in both], 40)
    ptystream("run", config(data), "--quiet")
    for thread in threads:
        thread.join()
    for one in both:
        one.close()
    got = read(tmp_path / "out.ptyd")
    np.testing.assert_array_equal(got.data, [crop(f) for f in frames])


def test_a_mask_and_positions_of_a_file(ptystream, config, tmp_path, instrument):
    frames = pixels(6)
    bad = np.zeros((80, 60), "<u4")
    bad[40, 30:35] = 1
    sent = v1(frames, detail="all")
    extra = [
        json.dumps({"htype": "dflatfield-1.0", "shape": [60, 80], "type": "float32"}).encode(),
        np.full((80, 60), 2.0, "<f4").tobytes(),
        json.dumps({"htype": "dpixelmask-1.0", "shape": [60, 80], "type": "uint32"}).encode(),
        bad.tobytes(),
        json.dumps({"htype": "dcountrate_table-1.0", "shape": [2, 1], "type": "float32"}).encode(),
        bytes(8),
    ]
    # As one message, as detectors do; and one a part, as simulators do.
    for k, start in enumerate([[sent[0] + extra], [[part] for part in sent[0] + extra]]):
        thread = instrument.send(start + sent[1:])
        (tmp_path / "where.txt").write_text("".join(f"{i} {2 * i}\n" for i in range(6)))
        data = block(
            "simplon",
            instrument.address,
            0,
            dfile=f"out{k}.ptyd",
            from_stream={"flatfield": True},
            positions={
                "file": "where.txt",
                "slow_multiplier": 1e-6,
                "fast_multiplier": 1e-6,
            },
        )
        del data["positions_theory"]
        ptystream("run", config(data), "--quiet")
        thread.join()
        got = read(tmp_path / f"out{k}.ptyd")
        np.testing.assert_allclose(got.data, [2.0 * crop(f) for f in frames])
        np.testing.assert_array_equal(got.weights > 0, [crop(bad) == 0] * 6)
        np.testing.assert_allclose(got.positions, [[i * 1e-6, 2e-6 * i] for i in range(6)])


def test_a_detector_that_never_begins_is_named(ptystream, config, tmp_path, instrument):
    data = block("simplon", instrument.address, 3, wait_secs=0.7)
    done = ptystream("run", config(data), expect=3)
    assert "no series has begun" in done.stderr and "wait_secs" in done.stderr, done.stderr
    data["address"] = f"ipc://{tmp_path}/nobody"
    done = ptystream("run", config(data), expect=3)
    assert "nobody is there" in done.stderr, done.stderr
    del data["address"]
    done = ptystream("run", config(data), expect=2)
    assert "data.address" in done.stderr


def replayed(ptystream, tmp_path, *args, first=False):
    """Starts a replay and returns it with its address, the last one that it binds or the `first`."""
    address = f"ipc://{tmp_path}/replay"
    own = ["--bind", address]
    args = [args[0], *own, *args[1:]] if first else [*args, *own]
    process = subprocess.Popen(
        [str(ptystream.path), "replay", *map(str, args)],
        cwd=tmp_path,
        env=ptystream.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return process, address


def test_a_series_is_recorded_and_sent_again(ptystream, config, tmp_path, instrument):
    frames = pixels(30)
    sent = v1(frames)
    thread = instrument.send(sent, pause=0.002)
    args = ["record", instrument.address, "--out", "a.rec", "--messages", len(sent)]
    said = ptystream(*args).stdout
    thread.join()
    assert said.startswith(f"{len(sent)} messages")
    for k, flags in enumerate([["--speed", 0], ["--speed", 20, "--duplicate", 5, "--reorder", 3]]):
        process, address = replayed(ptystream, tmp_path, "a.rec", *flags)
        data = block("simplon", address, 30, dfile=f"out{k}.ptyd")
        ptystream("run", config(data), "--quiet")
        assert process.wait(30) == 0, process.stdout.read()
        got = read(tmp_path / f"out{k}.ptyd")
        np.testing.assert_array_equal(got.data, [crop(f) for f in frames])
    # Every tenth message is lost, and every seventh is cut: messages 7, 10, 14, 20, 21, 28, 30.
    process, address = replayed(
        ptystream, tmp_path, "a.rec", "--speed", 0, "--drop", 10, "--truncate", 7
    )
    data = block("simplon", address, 30, dfile="faults.ptyd")
    ptystream("run", config(data), "--quiet", expect=5)
    assert process.wait(30) == 0, process.stdout.read()
    got = read(tmp_path / "faults.ptyd")
    bad = sorted(np.flatnonzero(~got.weights.any(axis=(1, 2))))
    assert bad == [n - 2 for n in (7, 10, 14, 20, 21, 28, 30)]


def test_recordings_of_others_are_sent_again(ptystream, config, tmp_path, recordings):
    process, address = replayed(ptystream, tmp_path, recordings / "eiger4m_v1.zmqdump")
    ptystream("run", config(block("simplon", address, 3)), "--quiet")
    assert process.wait(30) == 0, process.stdout.read()
    assert len(read(tmp_path / "out.ptyd").data) == 3
    # Positions of a contrast, published: pyzmq gets what the recording holds.
    wanted = list(cbors(recordings / "contrast-dump.cbors"))
    process, address = replayed(
        ptystream, tmp_path, recordings / "contrast-dump.cbors", "--publish", "--speed", 0
    )
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.subscribe(b"")
        socket.connect(address)
        socket.rcvtimeo = 20_000
        got = [socket.recv_multipart() for _ in wanted]
    assert process.wait(30) == 0, process.stdout.read()
    assert got == wanted and len(got) == 26


def test_published_streams_are_recorded_with_their_timing(ptystream, tmp_path):
    with zmq.Context() as context, context.socket(zmq.PUB) as socket:
        socket.bind(f"ipc://{tmp_path}/pub")
        process = ptystream.start("record", f"sub+ipc://{tmp_path}/pub", "--out", "p.rec")
        deadline = time.monotonic() + 30
        # What nobody has subscribed to yet is not kept.
        while not (tmp_path / "p.rec").exists() or (tmp_path / "p.rec").stat().st_size < 200:
            assert time.monotonic() < deadline
            socket.send_multipart([b"hello", b"again"])
            time.sleep(0.05)
        process.terminate()
        ptystream.finish(process)
    process, address = replayed(ptystream, tmp_path, "p.rec", "--speed", 10)
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.subscribe(b"")
        socket.connect(address)
        socket.rcvtimeo = 20_000
        assert socket.recv_multipart() == [b"hello", b"again"]
    process.wait(30)


def test_a_pandas_connection_is_recorded_with_the_frames_and_both_are_sent_again(
    ptystream, config, tmp_path, recordings, instrument
):
    data = (recordings / "panda_fast_framed_scaled.bin").read_bytes()
    panda = Panda(data)
    sent = v1(pixels(6))
    process = ptystream.start(
        "record", instrument.address, f"panda+{panda.address}", "--out", "both.rec"
    )
    thread = instrument.send(sent, pause=0.01)
    thread.join()
    deadline = time.monotonic() + 30
    whole = len(data) + sum(len(part) for message in sent for part in message)
    while not (tmp_path / "both.rec").exists() or (tmp_path / "both.rec").stat().st_size < whole:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.3)
    process.terminate()
    ptystream.finish(process)
    panda.close()
    assert panda.request == b"XML FRAMED SCALED\n"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process, address = replayed(
        ptystream, tmp_path, "both.rec", "--speed", 0, "--bind", f"tcp://127.0.0.1:{port}",
        first=True,
    )
    for line in process.stdout:
        if str(port) in line.decode():
            break
    with zmq.Context() as context, context.socket(zmq.PULL) as pull:
        pull.rcvtimeo = 20_000
        pull.connect(address)
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.sendall(b"XML FRAMED SCALED\n")
            got = b""
            while len(got) < len(data):
                piece = client.recv(1 << 16)
                assert piece
                got += piece
        assert [pull.recv_multipart() for _ in sent] == sent
    assert got == data
    assert process.wait(30) == 0


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["replay", "no.rec", "--bind", "ipc://x"], 3, ["no.rec"]),
        (["replay", "text.rec", "--bind", "ipc://x"], 3, ["text.rec", "no recording"]),
        (["record", "http://x", "--out", "o.rec"], 2, ["http://x"]),
        (["record", "ipc:///tmp/none", "--out", "no/o.rec"], 6, ["no/o.rec"]),
    ],
)
def test_what_is_no_recording_is_named(ptystream, tmp_path, args, code, words):
    (tmp_path / "text.rec").write_text("a text that is long enough to be something")
    done = ptystream(*args, expect=code)
    assert all(word in done.stderr for word in words), done.stderr
