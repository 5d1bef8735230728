"""Prepares frames as ptypy does, in plain numpy: the independent answer for the tests.

Order: crop or pad, transpose, flip rows, flip columns, rebin by the mean. Pairs are (row, column).
"""

import numpy as np


def round_half_even(value):
    return int(np.rint(value))


def crop_pad(frame, shape, center):
    """Cuts `shape` out around `center`; what lies outside is 0, and then integers become float64."""
    low = [round_half_even(c) - n // 2 for c, n in zip(center, shape)]
    high = [lo + n for lo, n in zip(low, shape)]
    inside = all(lo >= 0 and hi <= n for lo, hi, n in zip(low, high, frame.shape))
    dtype = frame.dtype if inside or frame.dtype == np.float32 else np.float64
    out = np.zeros(shape, dtype)
    source = tuple(slice(max(lo, 0), max(min(hi, n), 0)) for lo, hi, n in zip(low, high, frame.shape))
    target = tuple(slice(s.start - lo, s.stop - lo) for s, lo in zip(source, low))
    out[target] = frame[source]
    return out


def orient(frame, orientation):
    """0..7: bit 4 transposes, bit 2 reverses rows, bit 1 reverses columns, in this order."""
    if orientation & 4:
        frame = frame.T
    if orientation & 2:
        frame = frame[::-1]
    if orientation & 1:
        frame = frame[:, ::-1]
    return np.ascontiguousarray(frame)


def blocks(frame, factor):
    rows, cols = frame.shape
    return frame.reshape(rows // factor, factor, cols // factor, factor)


def prepare(frame, mask, shape, center, orientation=0, rebin=1):
    """Returns data and weights of one frame; `mask` has the frame's extent and own dtype."""
    shape = tuple(shape)
    if shape == frame.shape and orientation == 0 and rebin == 1:
        return frame, mask
    data = orient(crop_pad(frame, shape, center), orientation)
    weights = orient(crop_pad(mask, shape, center), orientation)
    if rebin != 1:
        data = blocks(data, rebin).mean(axis=3).mean(axis=1)
        valid = blocks((weights > 0).astype(float), rebin).mean(axis=3).mean(axis=1)
        weights = (valid == valid.max()) & (valid > 0)
    return data, weights


def meta_center(shape, orientation, rebin):
    """The optical axis after processing, in prepared pixels."""
    axis = [shape[0] // 2, shape[1] // 2]
    shape = list(shape)
    if orientation & 4:
        axis.reverse()
        shape.reverse()
    if orientation & 2:
        axis[0] = shape[0] - 1 - axis[0]
    if orientation & 1:
        axis[1] = shape[1] - 1 - axis[1]
    return [a / rebin for a in axis]
