"""Scans of one's own in Python: classes in the manner of ptypy, run by the program."""

import textwrap

import h5py
import numpy as np
import pytest

from ptyd_reader import read
from reference import prepare
from test_interop import raw_frames, write_folder

# The loader of ptypy's tutorial.
NUMPY_SCAN = '''
import numpy as np
import ptystream

class NumpyScan(ptystream.Scan):
    """A folder with positions.txt, geometry.txt and ccd/*.npy.

    Defaults:

    [base_path]
    type = str
    default = ./
    help = Base path to extract data files from

    [auto_center]
    default = False
    """
    def __init__(self, pars=None, **kwargs):
        super().__init__(pars, **kwargs)
        for line in open(self.p.base_path + "/geometry.txt"):
            key, value = line.split()
            if key != "shape":
                self.info[key] = float(value)

    def load_positions(self):
        lines = [line.split() for line in open(self.p.base_path + "/positions.txt")]
        self.files = [words[0] for words in lines]
        return np.array([[float(y), float(x)] for _, y, x in lines])

    def load(self, indices):
        if not hasattr(self, "files"):
            self.load_positions()
        raw = {i: np.load(self.p.base_path + "/" + self.files[i]) for i in indices}
        return raw, {}, {}
'''


def source(tmp_path, text, name="mysource.py"):
    (tmp_path / name).write_text(textwrap.dedent(text))


@pytest.mark.parametrize("parallel", ["None", "data"])
def test_the_tutorial_s_scan_makes_the_file_of_the_built_in_one(
    ptystream, config, tmp_path, parallel
):
    write_folder(tmp_path / "raw", raw_frames("u2"))
    source(tmp_path, NUMPY_SCAN)
    data = {"shape": 32, "rebin": 2, "save": "append", "load_parallel": parallel}
    own = {"name": "mysource:NumpyScan", "base_path": str(tmp_path / "raw"), "dfile": "own.ptyd"}
    told = ptystream("run", config(own | data, {"frames_per_chunk": 4}), "--threads", "2").stdout
    # Energy, distance and pixel size are those that the class found.
    assert "8 keV" in told and "from: mysource:NumpyScan" in told
    builtin = {"name": "numpy", "path": str(tmp_path / "raw"), "dfile": "builtin.ptyd"}
    path = config(builtin | data | {"auto_center": False}, {"frames_per_chunk": 4}, "b.json")
    ptystream("run", path, "--quiet")
    ptystream("compare", "own.ptyd", "builtin.ptyd")
    assert "complete already" in ptystream("run", "scan.json").stdout


def test_parameters_of_the_docstring_are_checked_like_ours(ptystream, config, tmp_path):
    source(tmp_path, NUMPY_SCAN)
    data = {"name": "mysource:NumpyScan", "base_pth": "x"}
    said = ptystream("run", config(data), expect=2).stderr
    assert "did you mean 'data.base_path'" in said
    said = ptystream("run", config({"name": "mysource:NumpyScan", "base_path": 3.5}), expect=2).stderr
    assert "data.base_path" in said
    shown = ptystream("config", config({"name": "mysource:NumpyScan"})).stdout
    assert 'base_path = "./"' in shown and "auto_center = false" in shown
    said = ptystream("run", config({"name": "nothing:Here"}), expect=2).stderr
    assert "data.name" in said and "No module named 'nothing'" in said
    said = ptystream("run", config({"name": "mysource:Other"}), expect=2).stderr
    assert "no attribute 'Other'" in said


PTYSCAN = '''
import numpy as np
import ptystream

class Loader:
    """An object with ptypy's hooks and nothing else.

    Defaults:

    [scale]
    type = float
    default = 2.0
    """
    def __init__(self, pars=None, **kwargs):
        self.p = pars
        self.info = {"energy": 9.5, "distance": 1.5, "psize": 4e-5}
        self.num_frames = 9

    def load_common(self):
        return {"dark": np.full((40, 36), 3.0)}

    def load(self, indices):
        print("loading", list(indices))
        rng = lambda i: np.random.default_rng(100 + i)
        raw = {i: rng(i).poisson(30.0, (40, 36)).astype("u2") for i in indices}
        weights = {i: (rng(i).random((40, 36)) > 0.1).astype("u1") for i in indices}
        return raw, {i: (i * 1e-6, -i * 2e-6) for i in indices}, weights

    def correct(self, raw, weights, common):
        made = {i: (frame - common["dark"]) * self.p["scale"] for i, frame in raw.items()}
        return made, weights

    def check(self, frames, start):
        return min(frames, self.num_frames - start), start + frames >= self.num_frames

Source = ptystream.from_ptyscan(Loader)
'''


@pytest.mark.parametrize("parallel", ["None", "data"])
def test_an_object_with_ptypy_s_hooks_is_a_source(ptystream, config, tmp_path, parallel):
    source(tmp_path, PTYSCAN)
    data = {
        "name": "mysource:Source",
        "scale": 0.5,
        "shape": 32,
        "auto_center": False,
        "center": [20, 18],
        "load_parallel": parallel,
        "dfile": "out.ptyd",
        "save": "append",
    }
    said = ptystream("run", config(data, {"frames_per_chunk": 4})).stderr
    assert "loading" in said, "what a hook prints goes to stderr"
    got = read(tmp_path / "out.ptyd")
    for i in range(9):
        rng = np.random.default_rng(100 + i)
        frame = (rng.poisson(30.0, (40, 36)) - 3.0) * 0.5
        weight = (np.random.default_rng(100 + i).random((40, 36)) > 0.1).astype("u1")
        wanted, mask = prepare(frame, weight, (32, 32), (20, 18))
        np.testing.assert_array_equal(got.data[i], wanted)
        np.testing.assert_array_equal(got.weights[i] > 0, mask > 0)
        np.testing.assert_allclose(got.positions[i], [i * 1e-6, -i * 2e-6])
    with h5py.File(tmp_path / "out.ptyd") as file:
        assert file["meta/energy"][()] == 9.5


BROKEN = '''
import os
import numpy as np
import ptystream

class Broken(ptystream.Scan):
    """Defaults:

    [mood]
    type = str
    default = good
    """
    num_frames = 12

    def load_positions(self):
        if self.p.mood == "positions":
            raise KeyError("no motors")
        return np.arange(24.0).reshape(12, 2) * 1e-6

    def identity(self):
        return [("always", "the same")]

    def load(self, indices):
        for i in indices:
            if i == 7 and self.p.mood == "bad":
                return {"no": 1}["such"]
            if i == 7 and self.p.mood == "frame":
                raise ptystream.FrameError("the shutter was closed")
            if i == 7 and self.p.mood == "dies":
                os._exit(3)
        return {i: np.full((16, 16), i, "u2") for i in indices}, {}, {}
'''


@pytest.mark.parametrize("parallel", ["None", "data"])
def test_an_exception_shows_its_traceback_and_ends_the_scan(ptystream, config, tmp_path, parallel):
    source(tmp_path, BROKEN)
    data = {
        "name": "mysource:Broken",
        "shape": 16,
        "auto_center": False,
        "save": "link",
        "dfile": "out.ptyd",
        "load_parallel": parallel,
    }
    path = config(data, {"frames_per_chunk": 3, "batch": 1})
    said = ptystream("run", path, "--set", "data.mood=bad", "--quiet", expect=3).stderr
    for words in ("mysource:Broken.load, scan point 7", "KeyError: 'such'", "Traceback", "mysource.py"):
        assert words in said, said
    # An interpreter that is gone, too, is named.
    said = ptystream("run", path, "--set=data.mood=dies", "--fresh", "--quiet", expect=3).stderr
    assert "has ended" in said and "scan point 7" in said
    # One bad frame is a gap.
    frame = ["--set=data.mood=frame", "--fresh", "--quiet"]
    said = ptystream("run", path, *frame, expect=5).stdout
    assert "frame 7: the shutter was closed" in said
    said = ptystream("run", path, "--set=data.mood=positions", "--fresh", expect=3).stderr
    assert "mysource:Broken.load_positions" in said and "KeyError: 'no motors'" in said


def test_an_interpreter_without_the_package_is_named(ptystream, config, tmp_path):
    source(tmp_path, BROKEN)
    del ptystream.env["PYTHONPATH"]
    said = ptystream("run", config({"name": "mysource:Broken"}), expect=2).stderr
    assert "No module named" in said or "pip install ./python" in said
    assert "pip install ./python" in said
    said = ptystream("run", config({"name": "mysource:Broken"}), "--python", "/no/python", expect=2)
    assert "/no/python" in said.stderr
