"""Instruments for tests: sockets that send as they do, messages of a detector, and what comes out of them."""

import json
import pickle
import socket
import struct
import threading
import time

import cbor2
import h5py
import hdf5plugin
import numpy as np
import zmq



def started(work):
    """Does something in a thread; returns that."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def messages(path):
    """The messages of a .zmqdump, each a list of parts."""
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        (count,) = struct.unpack_from("<I", data, at)
        at += 4
        parts = []
        for _ in range(count):
            (length,) = struct.unpack_from("<Q", data, at)
            parts.append(data[at + 8 : at + 8 + length])
            at += 8 + length
        found.append(parts)
    return found


def cbors(path):
    """The messages of a .cbors, each a list of parts."""
    with open(path, "rb") as file:
        while True:
            try:
                yield cbor2.load(file)
            except EOFError:
                return


def decoded(blob, shape, dtype, tmp_path):
    """Decodes a bitshuffle-LZ4 blob by HDF5 and its plugin."""
    path = tmp_path / "decode.h5"
    with h5py.File(path, "w") as file:
        how = hdf5plugin.Bitshuffle(cname="lz4")
        dataset = file.create_dataset("x", shape, dtype, chunks=tuple(shape), **how)
        dataset.id.write_direct_chunk((0,) * len(shape), blob)
    with h5py.File(path) as file:
        return file["x"][()]


class Instrument:
    """A PUSH socket that sends once somebody is connected."""

    KIND = zmq.PUSH

    def __init__(self, folder, name="detector"):
        self.context = zmq.Context()
        self.socket = self.context.socket(self.KIND)
        self.address = f"ipc://{folder / name}"
        self.socket.bind(self.address)

    def send(self, messages, pause=0.0):
        def work():
            for parts in messages:
                self.socket.send_multipart(parts)
                time.sleep(pause)

        return started(work)

    def close(self):
        self.context.destroy(linger=0)


def block(name, address, n, **more):
    data = {
        "name": name,
        "address": address,
        "positions_theory": [[k * 1e-6, 0.0] for k in range(n)],
        "auto_center": False,
        "shape": 48,
        "dfile": "out.ptyd",
        "save": "link",
    }
    data.update(more)
    return data


def crop(image, shape=(48, 48)):
    rows, cols = (n // 2 - s // 2 for n, s in zip(image.shape, shape))
    return image[rows : rows + shape[0], cols : cols + shape[1]]


def v1(frames, series=7, encoding="<", detail="basic", **change):
    """The messages of a series, as a detector sends them."""
    rows, cols = frames[0].shape
    header = {"htype": "dheader-1.0", "series": series, "header_detail": detail}
    settings = {
        "nimages": len(frames),
        "ntrigger": 1,
        "trigger_mode": "ints",
        "x_pixels_in_detector": cols,
        "y_pixels_in_detector": rows,
        "bit_depth_image": 16,
        "photon_energy": 8000.0,
        "x_pixel_size": 7.5e-5,
        "y_pixel_size": 7.5e-5,
        "detector_distance": 1.5,
        **change,
    }
    found = [[json.dumps(header).encode(), json.dumps(settings).encode()]]
    for k, frame in enumerate(frames):
        blob = frame.tobytes()
        found.append(
            [
                json.dumps({"htype": "dimage-1.0", "series": series, "frame": k}).encode(),
                json.dumps(
                    {
                        "htype": "dimage_d-1.0",
                        "shape": [cols, rows],
                        "type": "uint16",
                        "encoding": encoding,
                        "size": len(blob),
                    }
                ).encode(),
                blob,
                json.dumps({"htype": "dconfig-1.0", "start_time": k, "stop_time": k + 1}).encode(),
            ]
        )
    found.append([json.dumps({"htype": "dseries_end-1.0", "series": series}).encode()])
    return found


def pixels(n, shape=(80, 60)):
    return np.random.default_rng(3).poisson(9.0, (n, *shape)).astype("<u2")


class Publisher(Instrument):
    """A PUB socket that sends once somebody has subscribed."""

    KIND = zmq.XPUB

    def __init__(self, folder):
        super().__init__(folder, "positions")

    def send(self, messages, pause=0.0, late=0.0):
        def work():
            # Who was there before may say goodbye first.
            while self.socket.recv()[:1] != b"\x01":
                pass
            time.sleep(late)
            for message in messages:
                self.socket.send(message)
                time.sleep(pause)

        return started(work)


class Panda:
    """The data port of a PandA: answers one client with bytes, in pieces."""

    def __init__(self, data, piece=777):
        self.server = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self.server.getsockname()[1]}"
        self.request = b""

        def work():
            client, _ = self.server.accept()
            with client:
                while not self.request.endswith(b"\n"):
                    self.request += client.recv(100)
                for at in range(0, len(data), piece):
                    client.sendall(data[at : at + piece])
                # The port stays open after a series.
                time.sleep(20 if self.server.fileno() >= 0 else 0)

        started(work)

    def close(self):
        self.server.close()


def dumped(messages, protocol=2):
    return [pickle.dumps(m, protocol=protocol) for m in messages]
