"""What all Python tests share: the program, the shared inputs, and a way to write configurations."""

import json
import os
import pathlib
import subprocess
import time
import sys

import pytest

from instruments import Instrument

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
sys.path.insert(0, str(ROOT / "python" / "src"))
DEADLINE_SECS = 120


def pytest_terminal_summary(terminalreporter):
    """Writes "passed failed skipped" to the file PTYSTREAM_COUNTS, for the line of `make test`."""
    target = os.environ.get("PTYSTREAM_COUNTS")
    if not target:
        return
    groups = (("passed", "xpassed"), ("failed", "error"), ("skipped", "xfailed"))
    counts = [sum(len(terminalreporter.stats.get(k, ())) for k in kinds) for kinds in groups]
    pathlib.Path(target).write_text("{} {} {}\n".format(*counts))


@pytest.fixture(scope="session")
def shared():
    """The folder of recorded inputs and goldens beside the repository."""
    if not SHARED.is_dir():
        pytest.skip("../shared is absent")
    return SHARED


@pytest.fixture
def recordings(shared):
    """Recorded streams of real instruments."""
    folder = shared / "real" / "streams"
    if not folder.is_dir():
        pytest.skip("../shared/real/streams is absent")
    return folder


@pytest.fixture
def instrument(tmp_path):
    """A detector's socket."""
    one = Instrument(tmp_path)
    yield one
    one.close()


@pytest.fixture(scope="session")
def binary():
    """The program: PTYSTREAM_BIN, else the one that `cargo build` left."""
    named = os.environ.get("PTYSTREAM_BIN")
    path = pathlib.Path(named) if named else ROOT / "target" / "debug" / "ptystream"
    if not path.is_file():
        if named:
            pytest.fail(f"PTYSTREAM_BIN names {path}, which does not exist")
        pytest.skip("no target/debug/ptystream: run `cargo build`, or set PTYSTREAM_BIN")
    return path


class Program:
    """Starts the program in a folder of its own."""

    def __init__(self, path, folder):
        self.path = path
        self.folder = folder
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("PTYSTREAM_")}
        # Sources written in Python run in this interpreter, with the package as it stands here.
        self.env["PTYSTREAM_PYTHON"] = sys.executable
        self.env["PYTHONPATH"] = str(ROOT / "python" / "src")

    def start(self, *args):
        """Starts it and does not wait; stdout and stderr go to `stderr.log` of the folder."""
        log = open(self.folder / "stderr.log", "wb")
        with log:
            return subprocess.Popen(
                [str(self.path), *map(str, args)],
                cwd=self.folder,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def wait_said(self, process, words):
        """Waits until a started one says something."""
        log, deadline = self.folder / "stderr.log", time.monotonic() + DEADLINE_SECS
        while words not in log.read_text(errors="replace"):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text(errors="replace")
            time.sleep(0.02)

    def finish(self, process, expect=0):
        """Waits for a started one and checks its exit code."""
        try:
            code = process.wait(timeout=DEADLINE_SECS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = "no exit before the deadline"
        text = (self.folder / "stderr.log").read_text(errors="replace")
        assert code == expect, f"exit {code}, expected {expect}:\n{text}"
        return text

    def __call__(self, *args, expect=0):
        """Runs it to its end; returns stdout and stderr."""
        done = subprocess.run(
            [str(self.path), *map(str, args)],
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=DEADLINE_SECS,
            check=False,
        )
        assert expect is None or done.returncode == expect, (
            f"{' '.join(map(str, args))}: exit {done.returncode}, expected {expect}\n"
            f"stdout:\n{done.stdout}\nstderr:\n{done.stderr}"
        )
        return done


@pytest.fixture
def ptystream(binary, tmp_path):
    """The program, run in the test's own folder."""
    return Program(binary, tmp_path)


@pytest.fixture
def config(tmp_path):
    """A function that writes a configuration (JSON) and returns its path."""

    def write(data, pipeline=None, name="scan.json"):
        path = tmp_path / name
        path.write_text(json.dumps({"data": data, "pipeline": pipeline or {}}))
        return path

    return write
