"""Positions as streams: recordings of real instruments, and publishers of our own, joined with frames."""

import json
import pickle
import struct
import threading
import time

import h5py
import numpy as np
import pytest

from instruments import Panda, Publisher, block, cbors, crop, dumped, pixels, v1
from ptyd_reader import read



@pytest.fixture
def publisher(tmp_path):
    one = Publisher(tmp_path)
    yield one
    one.close()


def live(instrument, n, positions, **more):
    data = block("simplon", instrument.address, n, positions=positions, **more)
    del data["positions_theory"]
    return data


def per_frame(path, name):
    with h5py.File(path) as file:
        return file[f"ptystream/per_frame/{name}"][()]


def test_a_recording_of_contrast_is_joined(
    ptystream, config, tmp_path, recordings, instrument, publisher
):
    sent = [parts[0] for parts in cbors(recordings / "contrast-dump.cbors")]
    points = [m for m in map(pickle.loads, sent) if m.get("status") == "running"]
    assert len(points) == 20
    frames = pixels(20)
    threads = [publisher.send(sent), instrument.send(v1(frames), pause=0.002)]
    data = live(
        instrument,
        20,
        {
            "kind": "contrast",
            "address": publisher.address,
            "slow": "pseudo.y",
            "fast": "sx",
            "unit": "um",
            "flip": [True, True],
            "scalars": ["panda0.FMC_IN.VAL2_Mean", "dt"],
        },
    )
    ptystream("run", config(data), "--quiet")
    for thread in threads:
        thread.join()
    got = read(tmp_path / "out.ptyd")
    np.testing.assert_array_equal(got.data, [crop(f) for f in frames])
    expected = [[-p["pseudo"]["y"][0] * 1e-6, -p["sx"] * 1e-6] for p in points]
    np.testing.assert_allclose(got.positions, expected, rtol=1e-12)
    assert list(per_frame(tmp_path / "out.ptyd", "dt")) == [p["dt"] for p in points]
    values = [p["panda0"]["FMC_IN.VAL2_Mean"][0] for p in points]
    assert list(per_frame(tmp_path / "out.ptyd", "panda0.FMC_IN.VAL2_Mean")) == values
    sums = per_frame(tmp_path / "out.ptyd", "intensity")
    np.testing.assert_allclose(sums, [crop(f).sum() for f in frames])


def test_a_recording_of_a_panda_over_zeromq_is_joined_by_its_own_count(
    ptystream, config, tmp_path, recordings, instrument, publisher
):
    sent = [parts[0] for parts in cbors(recordings / "pcap-zmq.cbors")]
    fields = {"energy": [], "inttime": []}
    for message in map(json.loads, sent):
        for name, values in fields.items():
            values.extend(message.get(name, []))
    n = len(fields["energy"])
    assert n == 1500
    frames = pixels(n, (8, 8))
    threads = [publisher.send(sent), instrument.send(v1(frames))]
    positions = {"kind": "panda_json", "address": publisher.address}
    positions |= {"slow": "energy", "fast": "inttime", "unit": "mm"}
    ptystream("run", config(live(instrument, n, positions, shape=8)), "--quiet")
    for thread in threads:
        thread.join()
    got = read(tmp_path / "out.ptyd")
    np.testing.assert_array_equal(got.data, frames)
    expected = np.transpose([fields["energy"], fields["inttime"]]) * 1e-3
    np.testing.assert_allclose(got.positions, expected, rtol=1e-12)


def test_a_capture_of_a_panda_is_joined(ptystream, config, tmp_path, recordings, instrument):
    data = (recordings / "panda_fast_framed_scaled.bin").read_bytes()
    # Seven fields: a uint32 and six doubles.
    rows, at = [], data.index(b"BIN ")
    while data[at : at + 4] == b"BIN ":
        (length,) = struct.unpack_from("<I", data, at + 4)
        rows += struct.iter_unpack("<I6d", data[at + 8 : at + length])
        at += length
    assert len(rows) == 58
    frames = pixels(58)
    panda = Panda(data)
    thread = instrument.send(v1(frames))
    positions = {
        "kind": "panda",
        "address": panda.address,
        "slow": "COUNTER3.OUT",
        "fast": "COUNTER1.OUT.Mean",
        "unit": "um",
        "scalars": ["PCAP.TS_START.Value"],
    }
    ptystream("run", config(live(instrument, 58, positions)), "--quiet")
    thread.join()
    panda.close()
    assert panda.request == b"XML FRAMED SCALED\n"
    got = read(tmp_path / "out.ptyd")
    np.testing.assert_array_equal(got.data, [crop(f) for f in frames])
    expected = [[row[3] * 1e-6, row[5] * 1e-6] for row in rows]
    np.testing.assert_allclose(got.positions, expected, rtol=1e-12)
    start = per_frame(tmp_path / "out.ptyd", "PCAP.TS_START.Value")
    np.testing.assert_array_equal(start, [row[4] for row in rows])


def points(n, **more):
    """Positions as a publisher of its own sends them: started, n points, finished."""
    rows = [{"status": "running", "y": float(k), "x": 2.0 * k, "n": k} for k in range(n)]
    for name, values in more.items():
        for row, value in zip(rows, values):
            row[name] = value
    return [{"status": "started"}, *rows, {"status": "finished"}]


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_pickles_of_all_protocols_are_read(
    ptystream, config, tmp_path, instrument, publisher, protocol
):
    lines = [
        {"status": "running", "m": {"y": np.arange(k, k + 4, dtype="<f8"), "x": np.float32(k)}}
        for k in range(0, 12, 4)
    ]
    big = {"status": "running", "m": {"y": np.arange(12, 14, dtype=">i4"), "x": (7, 8)}}
    messages = [{"status": "started"}, *lines, big, {"status": "heartbeat"}]
    frames = pixels(14)
    threads = [publisher.send(dumped(messages, protocol)), instrument.send(v1(frames))]
    positions = {"kind": "contrast", "address": publisher.address, "slow": "m.y", "fast": "m.x"}
    ptystream("run", config(live(instrument, 14, positions)), "--quiet")
    for thread in threads:
        thread.join()
    got = read(tmp_path / "out.ptyd")
    np.testing.assert_array_equal(got.positions[:, 0], np.arange(14))
    np.testing.assert_array_equal(got.positions[:, 1], [0] * 4 + [4] * 4 + [8] * 4 + [7, 8])


def test_frames_without_position_and_positions_without_frame_are_told(
    ptystream, config, tmp_path, instrument, publisher
):
    n = 30
    messages = points(n)
    del messages[1 + 11]
    sent = v1(pixels(n))
    del sent[1 + 4]
    threads = [publisher.send(dumped(messages)), instrument.send(sent)]
    positions = {"kind": "contrast", "address": publisher.address, "slow": "y", "fast": "x"}
    positions |= {"join": "index", "index": "n", "unit": "um"}
    done = ptystream("run", config(live(instrument, n, positions)), expect=5)
    for thread in threads:
        thread.join()
    text = done.stdout + done.stderr
    assert "frame 11: without a position: no position has its index" in text, text
    assert "frame 4: the detector's frame did not come" in text, text
    got = read(tmp_path / "out.ptyd")
    assert sorted(np.flatnonzero(~got.weights.any(axis=(1, 2)))) == [4, 11]
    expected = np.array([[k, 2 * k] for k in range(n)]) * 1e-6
    # The lost frame keeps its own position; that without one has the one before.
    expected[11] = expected[10]
    np.testing.assert_allclose(got.positions, expected)


def test_positions_may_be_late_and_frames_wait(
    ptystream, config, tmp_path, instrument, publisher
):
    frames = pixels(20)
    threads = [
        publisher.send(dumped(points(20)), pause=0.01, late=1.5),
        instrument.send(v1(frames)),
    ]
    positions = {"kind": "contrast", "address": publisher.address, "slow": "y", "fast": "x"}
    ptystream("run", config(live(instrument, 20, positions)), "--quiet")
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(read(tmp_path / "out.ptyd").positions[:, 0], np.arange(20))


def test_a_frame_waits_no_longer_than_it_is_told(
    ptystream, config, tmp_path, instrument, publisher
):
    messages = points(20)[:11]
    threads = [publisher.send(dumped(messages)), instrument.send(v1(pixels(20)))]
    positions = {"kind": "contrast", "address": publisher.address, "slow": "y", "fast": "x"}
    positions["late_secs"] = 0.5
    done = ptystream("run", config(live(instrument, 20, positions)), expect=5)
    for thread in threads:
        thread.join()
    assert "none came within 0.5 s" in done.stdout + done.stderr
    got = read(tmp_path / "out.ptyd")
    assert list(got.weights.any(axis=(1, 2))) == [True] * 10 + [False] * 10


def test_a_closed_shutter_and_the_intensity_of_the_beam(
    ptystream, config, tmp_path, instrument, publisher
):
    n = 24
    frames = pixels(n)
    shutter = [0.0 if k in (3, 4, 9) else 1.0 for k in range(n)]
    i0 = [100.0 + k for k in range(n)]
    messages = points(n, shutter=shutter, i0=i0)
    threads = [publisher.send(dumped(messages)), instrument.send(v1(frames))]
    positions = {"kind": "contrast", "address": publisher.address, "slow": "y", "fast": "x"}
    positions |= {"gate": "shutter", "normalize": "i0", "reference": 100, "scalars": ["i0"]}
    # A frame without beam is what the user asked for: nothing is wrong.
    done = ptystream("run", config(live(instrument, n, positions)), expect=0)
    for thread in threads:
        thread.join()
    assert "left out by data.positions.gate" in done.stdout
    got = read(tmp_path / "out.ptyd")
    dark = np.array(shutter) == 0
    np.testing.assert_array_equal(~got.weights.any(axis=(1, 2)), dark)
    np.testing.assert_array_equal(got.positions[:, 0], np.arange(n))
    expected = np.stack([crop(f) for f in frames]) * (100.0 / np.array(i0))[:, None, None]
    np.testing.assert_allclose(got.data[~dark], expected[~dark], rtol=1e-12)
    stored = per_frame(tmp_path / "out.ptyd", "i0")
    assert np.isnan(stored[dark]).all() and list(stored[~dark]) == list(np.array(i0)[~dark])


def test_positions_are_joined_by_time(ptystream, config, tmp_path, instrument, publisher):
    n = 12
    sent = v1(pixels(n))
    # Exposures of 8 ms every 10 ms; the positions' clock is 5 s ahead and ticks every ms.
    for k, parts in enumerate(sent[1:-1]):
        times = {"htype": "dconfig-1.0", "start_time": k * 10**7, "stop_time": k * 10**7 + 8 * 10**6}
        parts[3] = json.dumps(times).encode()
    ticks = np.arange(10 * n + 20)
    message = {"status": "running", "t": 5 + ticks * 1e-3, "y": ticks * 1.0, "x": np.zeros(len(ticks))}
    messages = [{"status": "started"}, message, {"status": "finished"}]
    for at, expected in [("start", 0), ("mid", 4), ("end", 8), ("mean", 4)]:
        threads = [publisher.send(dumped(messages)), instrument.send(sent)]
        positions = {"kind": "contrast", "address": publisher.address, "slow": "y", "fast": "x"}
        positions |= {"join": "time", "time": "t", "time_offset": 5, "at": at}
        data = live(instrument, n, positions, dfile=f"{at}.ptyd")
        ptystream("run", config(data), "--quiet")
        for thread in threads:
            thread.join()
        got = read(tmp_path / f"{at}.ptyd").positions[:, 0]
        np.testing.assert_allclose(got, np.arange(n) * 10 + expected, atol=1e-6)


def test_a_text_that_grows(ptystream, config, tmp_path, instrument):
    n = 20
    frames = pixels(n)

    def write():
        with open(tmp_path / "where.txt", "w") as file:
            for k in range(n):
                file.write(f"{k} {0.5 * k} ")
                file.flush()
                time.sleep(0.01)
                file.write(f"{3 * k}\n")
                file.flush()

    thread = threading.Thread(target=write)
    thread.start()
    other = instrument.send(v1(frames), pause=0.005)
    positions = {"kind": "growing", "file": "where.txt", "slow": 1, "fast": 2, "index": 0}
    ptystream("run", config(live(instrument, n, positions)), "--quiet")
    thread.join()
    other.join()
    got = read(tmp_path / "out.ptyd")
    np.testing.assert_array_equal(got.positions, [[0.5 * k, 3 * k] for k in range(n)])


def test_positions_in_the_frames_own_metadata(ptystream, config, tmp_path, instrument):
    frames = pixels(10)
    sent = v1(frames)
    for k, parts in enumerate(sent[1:-1]):
        parts.append(json.dumps({"motors": {"y": 2 * k, "x": [k, k + 1]}}).encode())
    thread = instrument.send(sent)
    positions = {"kind": "frames", "slow": "motors.y", "fast": "motors.x"}
    positions |= {"samples": 2, "at": "mean", "unit": "nm"}
    ptystream("run", config(live(instrument, 10, positions)), "--quiet")
    thread.join()
    expected = [[2e-9 * k, 1e-9 * (k + 0.5)] for k in range(10)]
    np.testing.assert_allclose(read(tmp_path / "out.ptyd").positions, expected)


class Evil:
    def __reduce__(self):
        return (open, ("pwned", "w"))


def test_a_pickle_that_would_run_something_is_refused(
    ptystream, config, tmp_path, instrument, publisher
):
    messages = points(8)
    messages.insert(3, {"status": "running", "x": Evil()})
    threads = [publisher.send(dumped(messages)), instrument.send(v1(pixels(8)))]
    positions = {"kind": "contrast", "address": publisher.address, "slow": "y", "fast": "x"}
    done = ptystream("run", config(live(instrument, 8, positions)))
    for thread in threads:
        thread.join()
    assert "open', which is not allowed" in done.stderr, done.stderr
    assert not (tmp_path / "pwned").exists()
    np.testing.assert_array_equal(read(tmp_path / "out.ptyd").positions[:, 0], np.arange(8))


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"slow": "sy"}, 3, ["there is no 'sy'; there are", "y"]),
        ({"address": None}, 2, ["data.positions.address", "is needed"]),
        ({"fast": None}, 2, ["data.positions.fast", "is needed"]),
        ({"join": "time"}, 2, ["data.positions.time", "is needed"]),
        ({"join": "index"}, 2, ["data.positions.index", "is needed"]),
        ({"unit": "furlong"}, 2, ["data.positions.unit", "furlong"]),
        ({"kind": "contrats"}, 2, ["data.positions.kind", "contrast"]),
        ({"gate": "x", "gate_range": [2, 1]}, 2, ["gate_range", "above"]),
        ({"flip": [1, 2, 3]}, 2, ["data.positions.flip", "[slow, fast]"]),
        ({"adress": "x"}, 2, ["adress", "positions.address"]),
    ],
)
def test_what_is_wrong_with_positions_is_named(
    ptystream, config, tmp_path, instrument, publisher, change, code, words
):
    positions = {"kind": "contrast", "address": publisher.address, "slow": "y", "fast": "x"}
    positions = {k: v for k, v in {**positions, **change}.items() if v is not None}
    threads = []
    if code == 3:
        threads = [publisher.send(dumped(points(8))), instrument.send(v1(pixels(8)))]
    done = ptystream("run", config(live(instrument, 8, positions)), expect=code)
    for thread in threads:
        thread.join()
    assert all(word in done.stderr for word in words), done.stderr


def test_who_listens_too_late_is_told_and_not_given_the_positions_of_others(
    ptystream, config, tmp_path, instrument, publisher
):
    threads = [publisher.send(dumped(points(20)[5:])), instrument.send(v1(pixels(20)))]
    positions = {"kind": "contrast", "address": publisher.address, "slow": "y", "fast": "x"}
    done = ptystream("run", config(live(instrument, 20, positions)), expect=3)
    for thread in threads:
        thread.join()
    assert "had begun before anybody listened" in done.stderr, done.stderr


def test_by_index_who_listens_too_late_gets_what_is_left(
    ptystream, config, tmp_path, instrument, publisher
):
    threads = [publisher.send(dumped(points(20)[5:])), instrument.send(v1(pixels(20)))]
    positions = {"kind": "contrast", "address": publisher.address, "slow": "y", "fast": "x"}
    positions |= {"join": "index", "index": "n"}
    ptystream("run", config(live(instrument, 20, positions)), expect=5)
    for thread in threads:
        thread.join()
    got = read(tmp_path / "out.ptyd")
    there = got.weights.any(axis=(1, 2))
    assert list(there) == [False] * 4 + [True] * 16
    np.testing.assert_array_equal(got.positions[there, 0], np.arange(4, 20))


def test_other_scans_pass_while_the_detector_is_waited_for(
    ptystream, config, tmp_path, instrument, publisher
):
    n = 30
    others = [{"status": "running", "y": 900.0, "x": 900.0} for _ in range(n)]
    before = [{"status": "running", "motor": 1.0}, {"status": "finished"}, {"status": "started"}]
    threads = [publisher.send(dumped([*before, *others, {"status": "finished"}, *points(n)]))]
    positions = {"kind": "contrast", "address": publisher.address, "slow": "y", "fast": "x"}
    process = ptystream.start("run", config(live(instrument, n, positions)), "--quiet")
    threads[0].join()
    time.sleep(0.5)
    threads.append(instrument.send(v1(pixels(n))))
    ptystream.finish(process)
    threads[1].join()
    np.testing.assert_array_equal(read(tmp_path / "out.ptyd").positions[:, 0], np.arange(n))


@pytest.mark.parametrize("shift", [0, 1, -1])
def test_a_shift_is_told_at_the_end(ptystream, config, tmp_path, instrument, publisher, shift):
    side = 15
    n = side * side
    where = [
        (row, column if row % 2 == 0 else side - 1 - column)
        for row in range(side)
        for column in range(side)
    ]

    def shown(k):
        y, x = where[min(max(k, 0), n - 1)]
        return 100 + 40 * np.sin(0.7 * y + 0.4) * np.cos(0.6 * x) + 20 * np.cos(0.5 * (x - y))

    rng = np.random.default_rng(5)
    frames = rng.poisson([np.full((16, 16), shown(k + shift)) for k in range(n)]).astype("<u2")
    messages = points(n)
    for row, (y, x) in zip(messages[1:-1], where):
        row.update(y=float(y), x=float(x))
    threads = [publisher.send(dumped(messages)), instrument.send(v1(frames))]
    positions = {"kind": "contrast", "address": publisher.address, "slow": "y", "fast": "x"}
    data = live(instrument, n, positions, shape=16)
    done = ptystream("run", config(data), "--report", "report.json")
    for thread in threads:
        thread.join()
    verdict = json.loads((tmp_path / "report.json").read_text())["alignment"]["verdict"]
    assert verdict == ("aligned" if shift == 0 else {"shifted": shift}), verdict
    words = "aligned" if shift == 0 else f"shifted by {shift:+}"
    assert words in done.stdout
    assert ("do not belong together" in done.stderr) == (shift != 0), done.stderr
