"""Makes a corpus for each fuzz target of tests/fuzz out of recorded streams: fuzz_seeds.py RECORDINGS FOLDER.

Needs what the Python tests have in their environment.
"""

import json
import pathlib
import struct
import sys

import msgpack

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "python"))
from instruments import cbors, messages  # noqa: E402

recordings, target = map(pathlib.Path, sys.argv[1:3])


def seed(name, number, data):
    folder = target / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"seed{number:03}").write_bytes(data)


def parts(found):
    """Parts with their lengths before them; what is longer than a target can take is cut."""
    return b"".join(struct.pack("<H", len(part[:60000])) + part[:60000] for part in found)


stamp = {"run_id": 7, "epoch": 1}
frames = {"first": 3, "count": 2}
for n, body in enumerate(
    [
        {"hello": {"role": "worker", "name": "w", "attempt": 1}},
        {"want": {"tickets": 3}},
        {"measured": {"range": frames, "centers": [[1.5, 2.5], None]}},
        {"state": {"watermark": 9, "accepted": [[0, 12]]}},
        {"gap": {"range": frames, "reason": "lost", "positions": [[0.0, 1.0], [2.0, 3.0]]}},
        "bye",
    ]
):
    head = b"PTYS\x06\x00" + msgpack.packb({"stamp": stamp, "body": body})
    seed("wire", n, parts([head]))

small = b"\x01\x00\x02" + struct.pack(">QI", 512, 512)
seed("bslz4", 0, small + struct.pack(">I", 6) + b"\x10\x00\x01\x00\xf0\xe0")
seed("record", 0, b"FRAM" + bytes(103))
seed("record", 1, b"PTYSPOOL" + struct.pack("<I", 2) + b"a" * 32 + bytes(8))
seed("lines", 0, b"# y x t\n1.5 2.5 3\n4,5;6\n")
if not recordings.is_dir():
    print(f"fuzz_seeds: {recordings} is absent; only made-up seeds", file=sys.stderr)
    sys.exit()
for name in ("eiger4m_v1", "bad_bslz4_header_v1"):
    sent = list(messages(recordings / f"{name}.zmqdump"))
    short = [[p[:2000] for p in m] for m in sent]
    seed("simplon", len(name), parts([p for m in short for p in m]))
    for n, message in enumerate(short):
        seed("simplon", 100 + n + len(name), parts(message))
    for n, message in enumerate(sent):
        if len(message) > 2 and b"dimage" in message[0]:
            # A frame's first blocks, as if that were all.
            blob = message[2][12:5000]
            seed("bslz4", 10 + n, b"\x01\x00\x40" + struct.pack(">QI", 16384, 8192) + blob)
for n, (message,) in enumerate(messages(recordings / "eiger16m_stream2.zmqdump")):
    seed("stream2", n, parts([message[:4000]]))
for n, (message,) in enumerate(cbors(recordings / "contrast-dump.cbors")):
    seed("pickle", n, message)
for n, (message,) in enumerate(cbors(recordings / "pcap-zmq.cbors")):
    if n % 20 == 0 or n == 1:
        seed("panda_json", n, json.dumps(json.loads(message)).encode())
seed("panda", 0, (recordings / "panda_fast_framed_scaled.bin").read_bytes())
