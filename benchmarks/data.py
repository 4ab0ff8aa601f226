"""Input of the benchmarks: original NIH images or synthetic ones, and random data for training."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray
from PIL import Image

from cxr.core.image_array import write_description
from cxr.core.labels import CLASSES
from cxr.core.paths import IMAGES

ROOT = Path(__file__).resolve().parent.parent
ORIGINALS = ROOT.parent / "shared/nih-originals/images"
_NUM_SYNTHETIC = 71  # the number of gray images in ORIGINALS


def original_images() -> dict[str, bytes]:
    """Return PNG files of 1024 x 1024 pixels by name: those of NIH if they are available, or synthetic ones."""
    if ORIGINALS.is_dir():
        return {path.name: path.read_bytes() for path in sorted(ORIGINALS.glob("*.png"))}
    print("no ../shared/nih-originals: using synthetic images, which compress differently from radiographs")
    return {f"{number:08d}_000.png": _synthetic_png(number) for number in range(_NUM_SYNTHETIC)}


def is_gray(png: bytes) -> bool:
    """Return True if the color type in the header of a PNG file is grayscale."""
    return png[25] == 0


def sample_table(images: int) -> pd.DataFrame:
    """Return a table like `data/sample.csv` with random labels and two images per patient."""
    random = np.random.default_rng(0)
    metadata = {
        "image": [f"{number:08d}_000.png" for number in range(images)],
        "patient": np.arange(images) // 2,
        "age": 50,
        "sex": "M",
        "view": "PA",
    }
    labels = (random.random((images, len(CLASSES))) < 0.1).astype(np.uint8)
    return pd.concat([pd.DataFrame(metadata), pd.DataFrame(labels, columns=list(CLASSES))], axis=1)


def write_training_data(folder: Path, train: int, val: int, size: int) -> None:
    """Write the inputs of the stage train: sample.csv, split.csv, and random images.npy with images.json, in `data`.

    Args:
        folder: the project folder.
        train: number of images in train.
        val: number of images in val; test has two.
        size: side of the images, pixels.
    """
    (folder / "data").mkdir(parents=True, exist_ok=True)
    table = sample_table(train + val + 2)
    table["patient"] = table.index  # so that no patient is in two splits
    table.to_csv(folder / "data/sample.csv", index=False)
    split = np.repeat(["train", "val", "test"], [train, val, 2])
    table[["image", "patient"]].assign(split=split).to_csv(folder / "data/split.csv", index=False)
    random, shape = np.random.default_rng(0), (len(table), size, size)
    images = np.lib.format.open_memmap(folder / IMAGES, "w+", np.uint8, shape)
    for start in range(0, len(table), 1000):
        chunk = images[start : start + 1000]
        chunk[:] = random.integers(0, 256, chunk.shape, np.uint8)
    images.flush()
    write_description(folder / IMAGES, list(table["image"]))


def write_params(folder: Path, preset: Path, **changes: object) -> None:
    """Write `params.yaml`: the parameters of `preset` with `changes` of top-level parameters."""
    params = yaml.safe_load(preset.read_text(encoding="utf-8")) | changes
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def _synthetic_png(seed: int) -> bytes:
    """Return a PNG of noise on a gradient, which compresses about as much as a radiograph."""
    random = np.random.default_rng(seed)
    slope: NDArray[np.float64] = np.add.outer(np.linspace(40, 90, 1024), np.linspace(0, 90, 1024))
    stream = io.BytesIO()
    Image.fromarray((slope + random.normal(0, 2, slope.shape)).clip(0, 255).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()
