"""A project folder with networks in it: the stages run for real on a few small PNGs with a planted signal."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from stages import evaluate, resize, train
from tests.planted import SIDE, write_planted, write_planted_params


def train_project(folder: Path, **changes: Any) -> None:
    """Run resize, train and evaluate on 160 PNGs of four kinds, with `changes` of params.yaml; two members."""
    write_planted(folder, images=160)
    write_planted_params(
        folder, **{"image_size": SIDE, "seeds": [1, 2], "epochs": 1, "bootstrap_samples": 100, **changes}
    )
    (folder / "images").mkdir()
    planted = np.load(folder / "data/images.npy")
    for number, (name, pixels) in enumerate(zip(names_of(folder), planted, strict=True)):
        large = np.kron(pixels, np.ones((2, 3), np.uint8))
        kind = (large, large.astype(np.uint16) * 256 + 99, np.dstack([large] * 3), np.dstack([large] * 4))[number % 4]
        Image.fromarray(kind).save(folder / "images" / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train.data_hashes.cache_clear()
        patch.setattr(evaluate, "draw_plots", lambda *_: None)  # nobody looks at them, and they take seconds
        for stage in (resize, train, evaluate):
            stage.main()


def names_of(folder: Path) -> list[str]:
    """The images of `data/sample.csv`, in its order."""
    return list(pd.read_csv(folder / "data/sample.csv")["image"])
