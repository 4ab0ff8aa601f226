"""Paths of the files that the stages exchange, relative to the folder they run in. They are a public interface."""

from pathlib import Path

SAMPLE = Path("data/sample.csv")
OFFICIAL = Path("data/official.csv")
SPLIT = Path("data/split.csv")
IMAGES = Path("data/images.npy")
IMAGES_DESCRIPTION = Path("data/images.json")
MODELS = Path("data/models")
CURVES = Path("data/curves.csv")
PREDICTIONS = Path("data/predictions.csv")
DECISIONS = Path("data/decisions.json")
METRICS = Path("metrics")
PLOTS = Path("plots")
CHECKPOINTS = Path("checkpoints")


def model_file(model: str, seed: int) -> Path:
    """Return the path of the trained ensemble member of `model` and `seed`."""
    return MODELS / f"{model}-{seed}.safetensors"
