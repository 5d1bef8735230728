"""Frames pushed from a script, by way of a live source in Python."""

import socket

import numpy as np
import pytest

from ptyd_reader import read
from ptystream.push import Push


def free_address():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{found.getsockname()[1]}"


def scene(count=30):
    rng = np.random.default_rng(3)
    return rng.poisson(50.0, (count, 24, 24)).astype("u2"), rng.uniform(-1e-5, 1e-5, (count, 2))


def block(address, **more):
    data = {
        "name": "ptystream.push:Pushed",
        "address": address,
        "shape": 24,
        "auto_center": False,
        "energy": 8.0,
        "distance": 2.0,
        "psize": 5e-5,
        "dfile": "out.ptyd",
        "save": "append",
    }
    return data | more


@pytest.mark.parametrize("known", [True, False])
def test_ten_lines_make_a_scan(ptystream, config, tmp_path, known):
    frames, positions = scene()
    address = free_address()
    process = ptystream.start("run", config(block(address), {"frames_per_chunk": 8}), "--quiet")
    with Push(address, num_frames=len(frames) if known else None) as push:
        for frame, position in zip(frames, positions):
            push(frame, position)
    ptystream.finish(process)
    got = read(tmp_path / "out.ptyd")
    np.testing.assert_array_equal(got.data, frames)
    np.testing.assert_array_equal(got.positions, positions)


def test_a_script_that_fails_ends_the_scan_early(ptystream, config, tmp_path):
    frames, positions = scene()
    address = free_address()
    process = ptystream.start("run", config(block(address), {"frames_per_chunk": 8}), "--quiet")
    with pytest.raises(ValueError):
        with Push(address, num_frames=30) as push:
            for frame, position in zip(frames[:11], positions):
                push(frame, position)
            raise ValueError("the shutter is stuck")
    said = ptystream.finish(process, expect=7)
    assert "ValueError: the shutter is stuck" in said and "after 11 of 30" in said
    np.testing.assert_array_equal(read(tmp_path / "out.ptyd").data, frames[:11])


def test_nobody_pushes(ptystream, config):
    said = ptystream("run", config(block(free_address(), wait_secs=0.2)), expect=3).stderr
    assert "no frame was pushed" in said and "data.wait_secs" in said


def test_a_wait_for_a_script_ends_by_a_signal(ptystream, config):
    process = ptystream.start("run", config(block(free_address())))
    ptystream.wait_said(process, "waiting for frames at")
    process.terminate()
    said = ptystream.finish(process, expect=143)
    assert "a signal ended the wait for the scan to begin" in said
    assert "so it is ended now" not in said
