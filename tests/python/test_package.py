"""The Python package by itself: docstrings, files that grow, and what ptypy gets."""

import sys
import types

import pytest

import ptystream as package
from ptystream.params import Param, declared, parse_defaults

BLOCK = {
    "name": "moonflower",
    "raw_shape": 40,
    "shape": 32,
    "dtype": "uint16",
    "dfile": "out.ptyd",
}


def test_docstrings_of_ptypy_are_understood():
    found = parse_defaults(
        """A loader.

        Defaults:

        [intensities]
        default =
        type = Param
        help = The diffraction data. Shapes can be either
               (A, B, m, n) or (C, m, n).

        [intensities.key]
        default = None
        type = str
        help = Key of the dataset.

        [box]
        default = (1, 2)
        type = tuple, None
        userlevel = 2
        lowlim = 0
        """
    )
    assert [p["name"] for p in found] == ["intensities", "intensities.key", "box"]
    assert found[0]["help"].endswith("or (C, m, n).")
    assert found[1]["default"] is None and found[1]["types"] == ["str"]
    assert (found[2]["default"], found[2]["userlevel"], found[2]["lowlim"]) == ((1, 2), 2, 0)
    assert parse_defaults("nothing") == [] == parse_defaults(None)


def test_a_class_inherits_parameters_and_changes_defaults():
    class One(package.Scan):
        """Defaults:

        [a]
        type = int
        default = 1
        help = first

        [g.b]
        type = str
        default = x
        """

    class Two(One):
        """Defaults:

        [a]
        default = 5
        """

    names = {p["name"]: p for p in declared(Two)}
    assert names["a"]["default"] == 5 and names["a"]["help"] == "first"
    scan = Two({"g": {"b": "y"}})
    assert (scan.p.a, scan.p.g.b) == (5, "y")
    assert Two.DEFAULT.g.b == "x", "each scan has its own"


def test_a_tree_of_parameters():
    tree = Param(a=1)
    tree.at("b.c", 2)
    tree.update({"b": {"d": 3}})
    assert tree.b == {"c": 2, "d": 3} and tree.copy(9).b is not tree.b
    with pytest.raises(AttributeError):
        tree.nothing


def test_frames_are_yielded_while_the_file_grows(ptystream, config, tmp_path):
    block = BLOCK | {"num_frames": 60, "save": "link", "live": True, "rate": 100.0, "ring": 60}
    pipeline = {"frames_per_chunk": 10, "publish_interval_secs": 0.05}
    process = ptystream.start("run", config(block, pipeline), "--quiet")
    seen = []
    for frame in package.subscribe(tmp_path / "out.ptyd", poll=0.02, timeout=60):
        if not seen:
            assert process.poll() is None, "the first frames come while the scan runs"
        seen.append(frame.index)
        assert frame.data.shape == (32, 32) and frame.weight.shape == (32, 32)
        assert frame.position.shape == (2,)
    assert seen == list(range(60))
    ptystream.finish(process)


def test_an_aborted_scan_is_told(ptystream, config, tmp_path):
    block = BLOCK | {"num_frames": 40, "ends_at": 14, "save": "append"}
    ptystream("run", config(block, {"frames_per_chunk": 10}), "--quiet", expect=7)
    seen = []
    with pytest.raises(package.Aborted, match="after 14 of 40"):
        for frame in package.subscribe(tmp_path / "out.ptyd", poll=0.01):
            seen.append(frame.index)
    assert seen == list(range(14))
    with pytest.raises(TimeoutError):
        next(package.subscribe(tmp_path / "none.ptyd", poll=0.01, timeout=0.05))


@pytest.fixture
def stand_in(monkeypatch):
    """A stand-in for ptypy, which cannot be installed here: `PtydScan` with the two things that
    `PtystreamScan` uses, `source` and `check(frames, start)`, and `register`."""
    import h5py

    class PtydScan:
        def __init__(self, pars=None, **kwargs):
            self.source = str(pars["dfile"])
            self.info = types.SimpleNamespace(poll=0.0)

        def check(self, frames=None, start=None):
            with h5py.File(self.source, "r") as file:
                rows = sum(len(file[f"chunks/{n}/data"]) for n in file["chunks"])
            left = rows - (start or 0)
            return (left if frames is None else min(frames, left)), 0

    data = types.ModuleType("ptypy.core.data")
    data.PtydScan = PtydScan
    experiment = types.ModuleType("ptypy.experiment")
    experiment.register = lambda *_a, **_k: (lambda cls: cls)
    for name, module in {
        "ptypy": types.ModuleType("ptypy"),
        "ptypy.core": types.ModuleType("ptypy.core"),
        "ptypy.core.data": data,
        "ptypy.experiment": experiment,
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "ptystream.ptypy", raising=False)
    import importlib

    return importlib.import_module("ptystream.ptypy").PtystreamScan


def test_ptypy_s_scan_knows_when_it_has_ended(ptystream, config, tmp_path, stand_in):
    block = BLOCK | {"num_frames": 25, "save": "link"}
    path = config(block, {"frames_per_chunk": 10})
    ptystream("run", path, "--quiet")
    scan = stand_in({"dfile": tmp_path / "out.ptyd"})
    assert scan.check(10, 0) == (10, 0)
    assert scan.check(10, 10) == (10, 0)
    assert scan.check(10, 20) == (5, 1)
    assert scan.check(10, 25) == (0, 1)
    # Another scan in its place is no continuation.
    ptystream("run", path, "--quiet", "--set", "data.seed=9")
    with pytest.raises(RuntimeError, match="another scan"):
        scan.check(10, 25)


def test_ptypy_s_scan_waits_while_the_file_is_written(ptystream, config, tmp_path, stand_in):
    block = BLOCK | {"num_frames": 40, "ends_at": 14, "save": "link"}
    path = config(block, {"frames_per_chunk": 10, "on_abort": "keep"})
    ptystream("run", path, "--quiet", expect=7)
    scan = stand_in({"dfile": tmp_path / "out.ptyd"})
    assert scan.check(10, 0) == (10, 0)
    assert scan.check(10, 10) == (0, 0), "more is to come"
    ptystream("run", path, "--quiet", "--set", "data.ends_at=None")
    assert scan.check(100, 10) == (30, 1)


def test_the_package_says_what_it_is(tmp_path):
    from conftest import ROOT

    text = (ROOT / "python" / "pyproject.toml").read_text()
    cargo = (ROOT / "Cargo.toml").read_text()
    version = next(line for line in cargo.splitlines() if line.startswith("version"))
    assert version in text, "one version for both"
    assert all(hasattr(package, name) for name in package.__all__)
