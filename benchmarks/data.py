"""What the benchmarks work on: real images where they are, else drawn ones, and random data for training."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray
from PIL import Image

from cxr.core.labels import CLASSES

ROOT = Path(__file__).resolve().parent.parent
ORIGINALS = ROOT.parent / "shared/nih-originals/images"
_DRAWN = 71  # as many as there are real gray ones


def originals() -> dict[str, bytes]:
    """PNG files of 1024 x 1024 pixels, by name: NIH's where they are at hand, else noisy drawings."""
    if ORIGINALS.is_dir():
        return {path.name: path.read_bytes() for path in sorted(ORIGINALS.glob("*.png"))}
    print("no ../shared/nih-originals: drawn images, which pack otherwise than radiographs")
    return {f"{number:08d}_000.png": _draw(number) for number in range(_DRAWN)}


def sample_table(images: int) -> pd.DataFrame:
    """A table as `sample` writes it, random labels, two images a patient."""
    random = np.random.default_rng(0)
    about = {
        "image": [f"{number:08d}_000.png" for number in range(images)],
        "patient": np.arange(images) // 2,
        "age": 50,
        "sex": "M",
        "view": "PA",
    }
    labels = (random.random((images, len(CLASSES))) < 0.1).astype(np.uint8)
    return pd.concat([pd.DataFrame(about), pd.DataFrame(labels, columns=list(CLASSES))], axis=1)


def write_training_data(folder: Path, train: int, val: int, size: int) -> None:
    """Write what `train` reads: `data/sample.csv`, `data/split.csv` and `data/images.npy` of random bytes."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    table = sample_table(train + val + 2)
    table.to_csv(folder / "data/sample.csv", index=False)
    split = np.repeat(["train", "val", "test"], [train, val, 2])
    table[["image", "patient"]].assign(split=split).to_csv(folder / "data/split.csv", index=False)
    random, shape = np.random.default_rng(0), (len(table), size, size)
    images = np.lib.format.open_memmap(folder / "data/images.npy", "w+", np.uint8, shape)
    for start in range(0, len(table), 1000):
        part = images[start : start + 1000]
        part[:] = random.integers(0, 256, part.shape, np.uint8)
    images.flush()


def write_params(folder: Path, preset: Path, **changes: object) -> None:
    """Write `params.yaml`: those of `preset` with `changes` at the top level."""
    params = yaml.safe_load(preset.read_text(encoding="utf-8")) | changes
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def _draw(seed: int) -> bytes:
    """A PNG of noise on slopes, compressed about as far as a radiograph."""
    random = np.random.default_rng(seed)
    slope: NDArray[np.float64] = np.add.outer(np.linspace(40, 90, 1024), np.linspace(0, 90, 1024))
    stream = io.BytesIO()
    Image.fromarray((slope + random.normal(0, 2, slope.shape)).clip(0, 255).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()
