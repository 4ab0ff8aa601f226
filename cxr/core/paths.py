"""The files in which the stages meet. Other people's scripts read them too: a name here is a contract."""

from pathlib import Path

SAMPLE = Path("data/sample.csv")
OFFICIAL = Path("data/official.csv")
SPLIT = Path("data/split.csv")
IMAGES = Path("data/images.npy")
MODELS = Path("data/models")
CURVES = Path("data/curves.csv")
PREDICTIONS = Path("data/predictions.csv")
DECISIONS = Path("data/decisions.json")
METRICS = Path("metrics")
PLOTS = Path("plots")
CHECKPOINTS = Path("checkpoints")


def model_file(model: str, seed: int) -> Path:
    """Where the trained member of this network and seed lies."""
    return MODELS / f"{model}-{seed}.safetensors"
