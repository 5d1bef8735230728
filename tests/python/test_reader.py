"""The stand-in for ptypy's reader gives the answers that ptypy's reader gave on the golden files."""

import gzip
import json
import pathlib
import shutil

import h5py
import numpy as np
import pytest

from conftest import SHARED
from ptyd_reader import EOS, WAIT, PtydReader, read_all, stack

CASES = SHARED / "goldens" / "cases.json"


def recorded():
    """Golden cases whose file ptypy's reader was tried on."""
    if not CASES.is_file():
        return [pytest.param(None, id="goldens", marks=pytest.mark.skip("../shared is absent"))]
    cases = json.loads(CASES.read_text())["cases"]
    return [pytest.param(case, id=case["name"]) for case in cases if case["ptydscan"]]


def unpacked(case, folder):
    """Copies a case's files to `folder`, unpacked, and returns the master's path."""
    source = CASES.parent / "expected" / case["name"]
    for name in case["files"]:
        target = folder / pathlib.Path(name).name.removesuffix(".gz")
        if name.endswith(".gz"):
            with gzip.open(source / name) as packed, open(target, "wb") as plain:
                shutil.copyfileobj(packed, plain)
        else:
            shutil.copy(source / name, target)
    return folder / "out.ptyd"


@pytest.mark.parametrize("case", recorded())
def test_answers_as_ptypy_did(case, tmp_path):
    told = case["ptydscan"]
    path = unpacked(case, tmp_path)
    if "error" in told:
        kind = told["error"].split(":")[0]
        with pytest.raises(Exception) as caught:
            read_all(PtydReader(path), attempts=3)
        assert type(caught.value).__name__ == kind, caught.value
        if "contains no data" in told["error"]:
            assert "contains no data" in str(caught.value)
        return
    chunks, end = read_all(PtydReader(path), frames=3, attempts=3)
    assert (end, sum(len(chunk.indices) for chunk in chunks)) == (told["end"], told["frames"])
    stack(chunks)


@pytest.mark.parametrize("case", recorded())
def test_inspect_says_what_ptypy_s_reader_did(case, ptystream, tmp_path):
    told = case["ptydscan"]
    shown = ptystream("inspect", unpacked(case, tmp_path)).stdout
    assert ("PtydScan can read it." in shown) == (told.get("end") == "EOS"), shown


def write_chunk(file, number, rows, value, names=("data", "weights", "positions")):
    group = file.create_group(f"chunks/{number}")
    if "data" in names:
        group["data"] = np.full((rows, 8, 8), value, "u2")
    if "weights" in names:
        group["weights"] = np.ones((rows, 8, 8), bool)
    if "positions" in names:
        group["positions"] = np.full((rows, 2), value, float)


def write_master(path, num_frames, typed=True):
    file = h5py.File(path, "w")
    for name, value in {"num_frames": num_frames, "energy": 7.2, "distance": 1.0}.items():
        file[f"meta/{name}"] = value
        if typed:
            file[f"meta/{name}"].attrs["type"] = "scalar"
    file["meta/shape"] = np.array([8, 8])
    file["meta/psize"] = np.array([1e-6, 1e-6])
    file["meta/center"] = np.array([4.0, 4.0])
    return file


def test_goes_by_number_of_chunk_not_by_name(tmp_path):
    path = tmp_path / "a.ptyd"
    with write_master(path, 11) as file:
        for number in range(11):
            write_chunk(file, number, 1, number)
    frames = stack(read_all(PtydReader(path), frames=4)[0])
    assert list(frames.data[:, 0, 0]) == list(range(11))


def test_drops_dead_links_and_waits_for_the_missing_frames(tmp_path):
    path = tmp_path / "a.ptyd"
    with write_master(path, 4) as file:
        write_chunk(file, 0, 2, 1)
        file["chunks/1"] = h5py.ExternalLink("a.ptyd.part001", "/")
    reader = PtydReader(path)
    assert reader.auto(10).indices == [0, 1]
    assert reader.auto(10) is WAIT
    with h5py.File(tmp_path / "a.ptyd.part001", "w") as part:
        part["data"] = np.ones((2, 8, 8))
        part["weights"] = np.ones((2, 8, 8))
        part["positions"] = np.ones((2, 2))
    assert reader.auto(10).indices == [2, 3]
    assert reader.auto(10) is EOS


def test_reads_num_frames_once(tmp_path):
    path = tmp_path / "a.ptyd"
    with write_master(path, 5) as file:
        write_chunk(file, 0, 2, 1)
    reader = PtydReader(path)
    with h5py.File(path, "r+") as file:
        file["meta/num_frames"][()] = 2
    assert reader.auto(10).indices == [0, 1]
    assert reader.auto(10) is WAIT


def test_a_hole_in_the_order_of_chunks_delivers_frames_twice(tmp_path):
    """The fault of ptypy's reader because of which chunks must become visible in order."""
    path = tmp_path / "a.ptyd"
    with write_master(path, 3) as file:
        write_chunk(file, 0, 1, 0)
        write_chunk(file, 2, 1, 2)
    reader = PtydReader(path)
    got = [reader.auto(2)]
    with h5py.File(path, "r+") as file:
        write_chunk(file, 1, 1, 1)
    got.append(reader.auto(2))
    assert list(stack(got).data[:, 0, 0]) == [0, 2, 2]


def test_a_torn_chunk_is_an_error(tmp_path):
    path = tmp_path / "a.ptyd"
    with write_master(path, 4) as file:
        write_chunk(file, 0, 2, 0)
        write_chunk(file, 1, 2, 0, names=("data",))
    with pytest.raises(KeyError):
        PtydReader(path).auto(2)


def test_scalars_without_type_are_an_error(tmp_path):
    path = tmp_path / "a.ptyd"
    with write_master(path, 2, typed=False) as file:
        write_chunk(file, 0, 2, 0)
    with pytest.raises(TypeError, match="unsized"):
        PtydReader(path)
