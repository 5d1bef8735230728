"""A reader like ptypy's follows a file while it grows, and reads what was folded afterwards."""

import os
import time

import numpy as np
import pytest

from conftest import DEADLINE_SECS
from ptyd_reader import EOS, WAIT, PtydReader, RunChanged, read_all, run_id, stack

FRAMES = 60
SCANS = 50

# What a poll may meet while one scan's file gives way to the next one's: no master, no chunk, a
# link whose part has moved. ptypy's reader ends with these.
GONE = (OSError, KeyError, IndexError)


def scan(config, name="scan.json", **data):
    """Writes the configuration of a small simulated scan."""
    block = {
        "name": "moonflower",
        "num_frames": FRAMES,
        "shape": 32,
        "density": 0.4,
        "photons": 1e6,
        "seed": 1,
        "dfile": "live.ptyd",
        "save": "link",
    }
    block.update(data)
    pipeline = {"frames_per_chunk": 7, "publish_interval_secs": 0.0, "parts_linger_secs": 0.5}
    return config(block, pipeline, name)


def attach(path, process, old_run=None):
    """Makes a reader as soon as the file is there (and is not that of `old_run`)."""
    end = time.monotonic() + DEADLINE_SECS
    not_yet = FileNotFoundError if old_run is None else OSError
    while time.monotonic() < end:
        gone = process.poll() is not None
        try:
            if old_run is None or run_id(path) != old_run:
                return PtydReader(path)
        except not_yet:
            pass
        if gone and not path.exists():
            break
    pytest.fail(f"{path} did not appear; the program ended with {process.poll()}")


def follow(reader, process, frames=10):
    """Calls `auto` without rest until the end of scan."""
    chunks = []
    end = time.monotonic() + DEADLINE_SECS
    while time.monotonic() < end:
        ended = process.poll() is not None
        got = reader.auto(frames)
        if got is EOS:
            return stack(chunks)
        if got is not WAIT:
            chunks.append(got)
        elif ended:
            break
    process.kill()
    pytest.fail(f"the reader waits at frame {reader.framestart}; the writer ended: {process.poll()}")


def finished(path):
    chunks, end = read_all(PtydReader(path), frames=100000, attempts=1)
    assert end is EOS
    return stack(chunks)


def assert_equal(got, expected):
    assert got.indices == expected.indices
    for name in ("data", "weights", "positions"):
        np.testing.assert_array_equal(getattr(got, name), getattr(expected, name), err_msg=name)


def test_follows_fifty_scans_into_the_same_file(ptystream, config, tmp_path):
    path = tmp_path / "live.ptyd"
    before = None
    for number in range(SCANS):
        old_run = run_id(path) if number else None
        process = ptystream.start("run", scan(config, seed=number), "--quiet")
        reader = attach(path, process, old_run)
        got = follow(reader, process)
        ptystream.finish(process)
        whole = finished(path)
        assert len(whole.indices) == FRAMES
        assert_equal(got, whole)
        if before is not None:
            assert_equal(finished(tmp_path / "live.ptyd.old"), before)
            assert not np.array_equal(before.data, whole.data)
        before = whole


def test_a_reader_at_its_end_gets_nothing_of_the_next_scan(ptystream, config, tmp_path):
    path = tmp_path / "live.ptyd"
    ptystream("run", scan(config, seed=1), "--quiet")
    reader = PtydReader(path)
    assert_equal(stack(read_all(reader)[0]), finished(path))
    process = ptystream.start("run", scan(config, seed=2), "--quiet")
    while process.poll() is None:
        try:
            assert reader.auto(10) in (EOS, WAIT)
        except GONE:
            pass
    ptystream.finish(process)
    assert reader.auto(10) is EOS


@pytest.mark.parametrize("read_before", [0, 10, 50])
def test_a_careful_reader_in_mid_scan_never_mixes_two_runs(ptystream, config, tmp_path, read_before):
    """With the run id compared at each poll, every frame is the old scan's; then it stops."""
    path = tmp_path / "live.ptyd"
    ptystream("run", scan(config, seed=1), "--quiet")
    old = finished(path)
    reader = PtydReader(path, guard=True)
    got = [reader.auto(10) for _ in range(read_before // 10)]
    process = ptystream.start("run", scan(config, seed=2), "--quiet")
    end = time.monotonic() + DEADLINE_SECS
    while time.monotonic() < end:
        ended = process.poll() is not None
        start = reader.framestart
        try:
            answer = reader.auto(1)
        except RunChanged:
            break
        except GONE:
            reader.framestart = start
            assert not ended
            continue
        if answer is EOS:
            break
        if answer is not WAIT:
            got.append(answer)
        assert not (ended and answer is WAIT)
    ptystream.finish(process)
    if got:
        frames = stack(got)
        count = len(frames.indices)
        np.testing.assert_array_equal(frames.data, old.data[:count])
        np.testing.assert_array_equal(frames.positions, old.positions[:count])
    assert_equal(stack(read_all(PtydReader(path, guard=True))[0]), finished(path))


def test_a_reader_as_ptypy_s_in_mid_scan_gets_whole_frames_under_their_numbers(
    ptystream, config, tmp_path
):
    """ptypy's reader cannot tell runs apart; but no frame is torn, shifted or out of the past.

    Frame k is the k-th of the old or of the new scan, position and all, and once a frame of the
    new scan was delivered, none of the old one is.
    """
    path = tmp_path / "live.ptyd"
    ptystream("run", scan(config, seed=1), "--quiet")
    old = finished(path)
    reader = PtydReader(path)
    got = [reader.auto(10)]
    process = ptystream.start("run", scan(config, seed=2), "--quiet")
    end = time.monotonic() + DEADLINE_SECS
    while time.monotonic() < end:
        ended = process.poll() is not None
        start = reader.framestart
        try:
            answer = reader.auto(1)
        except GONE:
            reader.framestart = start
            assert not ended
            continue
        if answer is EOS:
            break
        if answer is not WAIT:
            got.append(answer)
        assert not (ended and answer is WAIT), reader.framestart
    ptystream.finish(process)
    new = finished(path)
    frames = stack(got)
    assert len(frames.indices) == FRAMES
    since_new = False
    for k in frames.indices:
        origin = [
            np.array_equal(frames.data[k], scan.data[k])
            and np.array_equal(frames.positions[k], scan.positions[k])
            for scan in (old, new)
        ]
        assert any(origin), f"frame {k} is neither scan's"
        assert not (since_new and not origin[1]), f"frame {k} is the old scan's after the new one's"
        since_new = since_new or not origin[0]


@pytest.mark.parametrize("save", ["append", "merge"])
def test_reads_what_was_folded(ptystream, config, tmp_path, save):
    ptystream("run", scan(config), "--quiet")
    ptystream("run", scan(config, name="folded.json", save=save, dfile="folded.ptyd"), "--quiet")
    assert_equal(finished(tmp_path / "folded.ptyd"), finished(tmp_path / "live.ptyd"))
    left = [name for name in os.listdir(tmp_path) if name.startswith("folded.ptyd.part")]
    assert left == []


def test_follows_a_live_fold(ptystream, config, tmp_path):
    """With pipeline.live the link master is there while the scan runs, and the fold takes its place.

    Not so with merge: ptypy's reader counts chunks in one opening of the file and reads them in the
    next, and a fold to one chunk in between leaves it looking for `chunks/8`. So that is refused.
    """
    path = tmp_path / "live.ptyd"
    setting = ("--quiet", "--set", "pipeline.live=true")
    process = ptystream.start("run", scan(config, save="append"), *setting)
    got = follow(attach(path, process), process)
    ptystream.finish(process)
    assert_equal(got, finished(path))
    told = ptystream("run", scan(config, save="merge"), *setting, expect=2)
    assert "pipeline.live" in told.stderr and 'data.save = "append"' in told.stderr


def test_the_master_first_appears_with_its_first_chunk(ptystream, config, tmp_path):
    """Whenever the file can be opened, a reader can be made of it."""
    for number in range(10):
        path = tmp_path / f"scan{number}.ptyd"
        process = ptystream.start("run", scan(config, dfile=path.name), "--quiet")
        seen = 0
        while process.poll() is None:
            try:
                assert PtydReader(path).num_frames == FRAMES
                seen += 1
            except FileNotFoundError:
                pass
        ptystream.finish(process)
        assert seen or PtydReader(path).num_frames == FRAMES
