"""Write a copy of CIFAR-10 that is kept as JPEG bytes in the format of the original batches.

Usage: unpack_cifar10.py FOLDER OUT, where FOLDER holds cifar10-jpeg-train.npz and cifar10-jpeg-test.npz: labels,
offsets and the images' bytes.
"""

import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image

BATCHES = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}


def main(folder: Path, out: Path) -> None:
    """Write the six files, and a note that says what they are."""
    out.mkdir(parents=True)
    for split, names in BATCHES.items():
        with np.load(folder / f"cifar10-jpeg-{split}.npz") as arrays:
            labels, offsets, content = arrays["labels"], arrays["offsets"], arrays["jpeg"].tobytes()
        records = np.empty((len(labels), 3073), np.uint8)
        records[:, 0] = labels
        for i, (start, end) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
            with Image.open(io.BytesIO(content[start:end])) as picture:
                records[i, 1:] = np.asarray(picture.convert("RGB")).transpose(2, 0, 1).ravel()
        for name, part in zip(names, np.split(records, len(names)), strict=True):
            (out / name).write_bytes(part.tobytes())
    (out / "NOTE.txt").write_text("JPEG copy\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
