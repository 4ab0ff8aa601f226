import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cxr.core.errors import InputError
from cxr.core.labels import CLASSES, UNKNOWN
from cxr.evaluation.decisions import Decisions, fit_decisions
from cxr.evaluation.params import Threshold
from cxr.inference.params import TTA

TTA_VIEWS = TTA(hflip=True, translate=0.05, scale=0, five_crop=0)


@pytest.fixture
def decisions() -> Decisions:
    """Decisions in which the last class has no labels."""
    random = np.random.default_rng(0)
    labels = (random.random((200, 15)) < 0.3).astype(np.uint8)
    probabilities = (labels + random.random(labels.shape)) / 3
    labels[:, -1] = UNKNOWN
    threshold = Threshold(rule="youden", sensitivity=0.9)
    hashes = {"a-1": "00", "a-2": "ff"}
    return fit_decisions(labels, probabilities, threshold, sha256=hashes, tta=TTA_VIEWS, synthetic=True)


def test_calibrated_thresholds_give_the_same_decisions(decisions: Decisions) -> None:
    probabilities = np.random.default_rng(1).random((50, 15))
    before = probabilities >= decisions.thresholds
    assert np.array_equal(before, decisions.calibration.apply(probabilities) >= decisions.calibrated_thresholds)
    assert not before[:, -1].any()


def test_what_is_written_is_read_with_the_same_bits(decisions: Decisions, tmp_path: Path) -> None:
    decisions.write(tmp_path / "decisions.json")
    read = Decisions.read(tmp_path / "decisions.json")
    np.testing.assert_array_equal(read.thresholds, decisions.thresholds)
    np.testing.assert_array_equal(read.calibrated_thresholds, decisions.calibrated_thresholds)
    np.testing.assert_array_equal(read.calibration.slope, decisions.calibration.slope)
    assert read.calibration.not_fitted == decisions.calibration.not_fitted
    assert (read.members, read.sha256, read.tta) == (("a-1", "a-2"), ("00", "ff"), TTA_VIEWS)
    assert (read.rule, read.synthetic, read.classes) == ("youden", True, CLASSES)
    assert json.loads((tmp_path / "decisions.json").read_text())["thresholds"][-1] is None


def change(content: dict[str, Any], name: str) -> str:
    """Return the JSON text of `content` with the defect `name`."""
    if name == "unknown key":
        content["more"] = 1
    elif name == "missing key":
        del content["tta"]
    elif name == "old calibration":
        content["calibration"]["kept_because"] = content["calibration"].pop("not_fitted")
    elif name == "few thresholds":
        content["thresholds"].pop()
    elif name == "other classes":
        content["classes"][0] = "Fracture"
    elif name == "falling slope":
        content["calibration"]["slope"][0] = -1
    return "{" if name == "not JSON" else json.dumps(content)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unknown key", r"another version of this project \(more: "),
        ("missing key", r"another version of this project \(tta: "),
        ("old calibration", r"another version of this project \(calibration: .*not_fitted"),
        ("few thresholds", r"another version of this project \(thresholds: .*15 numbers"),
        ("other classes", r"another version of this project \(classes: "),
        ("falling slope", r"another version of this project \(calibration: .*above 0"),
        ("not JSON", r"decisions\.json is not JSON"),
    ],
)
def test_a_broken_file_is_an_input_error(decisions: Decisions, tmp_path: Path, name: str, message: str) -> None:
    path = tmp_path / "decisions.json"
    decisions.write(path)
    path.write_text(change(json.loads(path.read_text()), name))
    with pytest.raises(InputError, match=message):
        Decisions.read(path)


def test_a_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no .*decisions\.json; run `dvc repro`"):
        Decisions.read(tmp_path / "decisions.json")
