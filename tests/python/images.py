"""Images in files, written by the libraries that others write them with."""

import numpy as np
import pytest

fabio = pytest.importorskip("fabio")
tifffile = pytest.importorskip("tifffile")


def write_npy(path, image):
    np.save(path, image)


def write_tiff(path, image, **how):
    tifffile.imwrite(path, image, photometric="minisblack", **how)


def write_edf(path, image):
    """One image, or a stack of them."""
    first, *more = image if image.ndim == 3 else [image]
    file = fabio.edfimage.EdfImage(data=first)
    for other in more:
        file.append_frame(data=other)
    file.write(str(path))


def write_cbf(path, image):
    fabio.cbfimage.CbfImage(data=image).write(str(path))
