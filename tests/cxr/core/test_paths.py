from pathlib import Path

import pytest
import yaml

from cxr.core import paths
from tests.fixtures.project import ROOT


def test_a_model_file_is_named_for_its_model_and_seed() -> None:
    assert paths.model_file("resnet10t", 3) == Path("data/models/resnet10t-3.safetensors")


@pytest.mark.parametrize(
    "name",
    ["SAMPLE", "OFFICIAL", "SPLIT", "IMAGES", "IMAGES_DESCRIPTION", "MODELS", "CURVES", "PREDICTIONS", "DECISIONS"],
)
def test_dvc_tracks_every_file_in_data(name: str) -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    outs = [out for stage in stages.values() for out in stage["outs"] if isinstance(out, str)]
    assert str(getattr(paths, name)) in outs
