"""A real scan, prepared from ptypy's own parameter file, equals what ptypy made of it."""

import h5py
import numpy as np

from ptyd_reader import read_value


def test_petra_equals_ptypy(ptystream, shared, tmp_path):
    real = shared / "real"
    ptystream(
        "run", real / "petra_p25_full.json", "--quiet", "--set", "data.dfile=out.ptyd",
        "--set", "pipeline.frames_per_chunk=40",
    )
    with h5py.File(real / "petra_p25_full.ptyd") as theirs, h5py.File(tmp_path / "out.ptyd") as ours:
        assert set(ours["chunks"]) == set(theirs["chunks"])
        for number, chunk in theirs["chunks"].items():
            for name, dataset in chunk.items():
                mine = ours[f"chunks/{number}/{name}"]
                assert mine.dtype == dataset.dtype, mine.name
                assert mine.attrs["type"] == dataset.attrs["type"], mine.name
                np.testing.assert_array_equal(mine[()], dataset[()], err_msg=mine.name)
        expected, found = read_value(theirs["meta"]), read_value(ours["meta"])
        assert set(found) == set(expected)
        for name, value in expected.items():
            if isinstance(value, (str, type(None))):
                assert found[name] == value, name
            else:
                np.testing.assert_allclose(found[name], value, rtol=1e-14, err_msg=name)
