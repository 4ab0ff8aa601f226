import json
from pathlib import Path

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


NO_VALUE = object()


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        ("more", 1, "more: "),
        ("tta", NO_VALUE, "tta: "),
        ("synthetic", "yes", "synthetic: .*boolean"),
        ("calibration.not_fitted", NO_VALUE, "calibration: not_fitted: "),
        ("calibration.slope.0", -1.0, "calibration: .*above 0"),
        ("calibration.slope", {"a": 1}, "calibration: slope: 15 numbers"),
        ("calibration", {"slope": [1.0], "intercept": [0.0], "not_fitted": [""]}, "calibration: slope: 15 numbers"),
        ("thresholds", [0.5] * 14, "thresholds: 15 numbers"),
        ("thresholds.0", "0.5", "thresholds: 15 numbers"),
        ("thresholds.0", 10**400, "thresholds: 15 numbers"),
        ("calibrated_thresholds.0", float("inf"), "calibrated_thresholds: 15 numbers"),
        ("classes.0", "Fracture", "classes: "),
        ("members.0", "../a-1", r"members\.0: .*pattern"),
        ("members", ["a-1"], "the whole: each member needs a SHA-256"),
    ],
)
def test_an_invalid_value_is_an_input_error(
    decisions: Decisions, tmp_path: Path, keys: str, value: object, message: str
) -> None:
    path = tmp_path / "decisions.json"
    decisions.write(path)
    content = json.loads(path.read_text())
    *outer, last = (int(key) if key.isdigit() else key for key in keys.split("."))
    section = content
    for key in outer:
        section = section[key]
    section[last] = value
    if value is NO_VALUE:
        del section[last]
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"decisions\.json .*another version .*\({message}.*`dvc repro`"):
        Decisions.read(path)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "1" * 5000])
def test_a_file_that_is_not_json_is_an_input_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "decisions.json").write_text(text)
    with pytest.raises(InputError, match=r"decisions\.json is not JSON .*run `dvc repro`"):
        Decisions.read(tmp_path / "decisions.json")


def test_a_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no .*decisions\.json; run `dvc repro`"):
        Decisions.read(tmp_path / "decisions.json")
