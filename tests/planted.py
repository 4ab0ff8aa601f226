"""A small data set with a planted signal, as the stages before train leave it: fast to learn, and nothing to decode."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from cxr.core.labels import CLASSES
from tests.project import ROOT

MODEL = "test_resnet"
SIDE = 32
# Every option of training at once.
EVERYTHING: dict[str, Any] = {
    "head_lr_factor": 3,
    "layer_decay": 0.8,
    "unfreeze_epochs": 1,
    "grad_clip_norm": 1,
    "lr_schedule": "cosine",
    "warmup_epochs": 1,
    "ema_decay": 0.9,
    "drop_rate": 0.1,
    "drop_path_rate": 0.1,
    "attention_pool": True,
    "prior_bias": True,
    "loss": {"max_pos_weight": 5, "focal_gamma": 1, "label_smoothing": 0.05},
}


def write_planted(folder: Path, images: int = 240, seed: int = 0) -> None:
    """Write `data/sample.csv`, `data/split.csv` and `data/images.npy`: each class brightens a place of its own."""
    random = np.random.default_rng(seed)
    labels = (random.random((images, len(CLASSES))) < 0.3).astype(np.uint8)
    pixels = random.normal(90, 15, (images, SIDE, SIDE))
    for column in range(len(CLASSES)):
        row, place = divmod(column, 4)
        pixels[:, 8 * row : 8 * row + 8, 8 * place : 8 * place + 8] += 60 * labels[:, column, None, None]
    patients = np.arange(images) // 2
    table = pd.DataFrame({"image": [f"{number:08d}_000.png" for number in range(images)], "patient": patients})
    splits = np.array(["train", "train", "train", "val", "test"])[patients % 5]
    about = table.assign(age=50, sex="M", view="PA")
    (folder / "data").mkdir(parents=True)
    pd.concat([about, pd.DataFrame(labels, columns=list(CLASSES))], axis=1).to_csv(
        folder / "data/sample.csv", index=False
    )
    table.assign(split=splits).to_csv(folder / "data/split.csv", index=False)
    np.save(folder / "data/images.npy", pixels.clip(0, 255).astype(np.uint8))
    write_planted_params(folder)


def write_planted_params(folder: Path, **changes: Any) -> None:
    """Write params.yaml: the committed one, with a tiny network for a few epochs, and `changes` at the top level."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params |= {"raw_dir": str(folder), "models": [MODEL], "seeds": [1], "epochs": 3, "batch_size": 16, "lr": 0.003}
    # The signal is where a place is bright: flips and shifts would hide it.
    params["augment"] = {**dict.fromkeys(params["augment"], 0.0), "brightness": 0.1}
    params["tta"] = dict.fromkeys(params["tta"], 0) | {"hflip": False}
    params |= {"threads": 1, "mixup_alpha": 0.1, "T_0": 10, **changes}
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
