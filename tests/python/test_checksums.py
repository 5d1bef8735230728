"""The checksums in a file are those of the published algorithm, and tell what has changed since."""

import json
import zlib

import h5py
import numpy as np
import pytest

FRAMES = 23
BLOCK = {
    "name": "moonflower",
    "num_frames": FRAMES,
    "seed": 5,
    "raw_shape": 40,
    "shape": 32,
    "dtype": "uint16",
    "dfile": "out.ptyd",
}


def storage_chunks(dataset):
    """The stored bytes of each storage chunk, in order."""
    batch = dataset.chunks[0]
    for row in range(0, dataset.shape[0], batch):
        yield dataset.id.read_direct_chunk((row, 0, 0))[1]


def sums_of(file, name):
    """The sums of all storage chunks of a dataset, as Python computes them."""
    chunks = sorted(file["chunks"], key=int)
    return [
        zlib.crc32(blob)
        for chunk in chunks
        for blob in storage_chunks(file[f"chunks/{chunk}/{name}"])
    ]


@pytest.mark.parametrize("save", ["link", "append", "merge"])
@pytest.mark.parametrize("compression", ["none", "gzip:4", "bslz4"])
def test_sums_are_those_of_zlib(ptystream, config, save, compression):
    # 23 frames in chunks of 9 and batches of 4: storage chunks of parts do not meet in a merge.
    path = config(
        {**BLOCK, "save": save},
        {"frames_per_chunk": 9, "batch": 4, "compression": compression},
    )
    if save == "merge" and compression == "bslz4":
        path = config(
            {**BLOCK, "save": save},
            {"frames_per_chunk": 8, "batch": 4, "compression": compression},
        )
    ptystream("run", path, "--quiet")
    with h5py.File(ptystream.folder / "out.ptyd") as file:
        group = file["ptystream/checksums"]
        assert group.attrs["algorithm"] == "CRC-32"
        for name in ("data", "weights"):
            stored = group[name][()]
            assert stored.dtype == np.uint32
            assert stored.tolist() == sums_of(file, name)
    assert "as written: " in ptystream("inspect", "--checksums", "out.ptyd").stdout


@pytest.mark.parametrize("save", ["link", "append"])
def test_a_byte_that_has_changed_is_named(ptystream, config, save):
    path = config({**BLOCK, "save": save}, {"frames_per_chunk": 8, "batch": 4})
    ptystream("run", path, "--quiet")
    master = ptystream.folder / "out.ptyd"
    with h5py.File(master) as file:
        holder = file["chunks/1/data"].file.filename
        info = file["chunks/1/data"].id.get_chunk_info(1)
    with open(holder, "r+b") as raw:
        raw.seek(info.byte_offset + info.size // 2)
        byte = raw.read(1)[0]
        raw.seek(-1, 1)
        raw.write(bytes([byte ^ 0x40]))
    said = ptystream("inspect", "--checksums", "out.ptyd", expect=1).stdout
    assert "frames 12-15: data of storage chunk 1: checksum is" in said
    assert str(holder) in said or holder.rsplit("/", 1)[-1] in said
    assert "DAMAGED: 1 of " in said
    if save == "link":
        (ptystream.folder / "out.ptyd.part002").unlink()
        said = ptystream("inspect", "--checksums", "out.ptyd", expect=1).stdout
        assert "out.ptyd.part002: /chunks/2: cannot be opened" in said


def test_without_checksums_there_is_nothing_to_compare(ptystream, config):
    path = config({**BLOCK, "save": "append"}, {"checksums": False})
    ptystream("run", path, "--quiet")
    with h5py.File(ptystream.folder / "out.ptyd") as file:
        assert "checksums" not in file["ptystream"]
    said = ptystream("inspect", "--checksums", "out.ptyd", expect=3).stderr
    assert "holds no checksums" in said and "pipeline.checksums" in said


def test_the_report_lies_beside_the_file(ptystream, config):
    path = config({**BLOCK, "save": "append"}, {"frames_per_chunk": 8})
    told = ptystream("run", path, "--report", "mine.json").stdout
    assert "out.ptyd.report.json" in told
    report = json.loads((ptystream.folder / "out.ptyd.report.json").read_text())
    mine = json.loads((ptystream.folder / "mine.json").read_text())
    for key in set(report) - {"ended"}:
        assert report[key] == mine[key], key
    assert report["frames"] == {
        "expected": FRAMES,
        "written": FRAMES,
        "resumed": 0,
        "lost": 0,
        "received": FRAMES,
        "duplicated": 0,
        "mismatched": 0,
        "stale": 0,
        "damaged": 0,
        "redispatched": 0,
    }
    with h5py.File(ptystream.folder / "out.ptyd") as file:
        record = file["ptystream"].attrs
        assert report["run_id"] == record["run_id"]
        assert report["scan_key"] == record["scan_key"]
    assert sum(w["frames"] for w in report["workers"]) == FRAMES
    # Prepared anew, the old one moves with its file.
    ptystream("run", path, "--force", "--quiet")
    old = json.loads((ptystream.folder / "out.ptyd.old.report.json").read_text())
    assert old["run_id"] == report["run_id"]
    new = json.loads((ptystream.folder / "out.ptyd.report.json").read_text())
    assert new["run_id"] != report["run_id"]
