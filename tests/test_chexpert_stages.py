"""All five stages on a data set in the layout of CheXpert, which needs a change of parameters only."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest

from cxr.core.labels import CLASSES
from cxr.core.tables import read_sample
from cxr.datasets.chexpert import SHARED
from cxr.evaluation.decisions import Decisions
from cxr.params import STAGES
from tests.fixtures.planted import MODEL
from tests.fixtures.stages import error_of, run_module, run_stage, write_params
from tools.phantom.dataset import write_phantom

UNSHARED = sorted(set(CLASSES) - set(SHARED.values()))
SIDE = 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all stages have run on a synthetic data set of 150 studies."""
    folder = tmp_path_factory.mktemp("chexpert")
    write_phantom(folder / "raw", seed=1, images=150, size=SIDE, layout="chexpert")
    (folder / "data/weights").mkdir(parents=True)
    small = {
        "raw_dir": "raw",
        "image_size": SIDE,
        "models": [MODEL],
        "epochs": 2,
        "threads": 1,
        "bootstrap_samples": 100,
    }
    write_params(folder, **{"split.method": "official", **small})
    for stage in STAGES:
        done = run_stage(stage, folder)
        assert done.returncode == 0, done.stderr
    return folder


def test_the_official_split_is_used(folder: Path) -> None:
    split = pd.read_csv(folder / "data/split.csv")
    assert (split["split"] == "test").equals(split["image"].str.startswith("valid/"))
    assert len(split) == 150


def test_uncertain_labels_and_classes_of_nih_only_are_unknown(folder: Path) -> None:
    sample = pd.read_csv(folder / "data/sample.csv")
    raw = pd.concat([pd.read_csv(folder / "raw" / name) for name in ("train.csv", "valid.csv")])
    raw = raw[raw["Frontal/Lateral"] == "Frontal"]
    assert sample[UNSHARED].isna().all(axis=None)
    for theirs, ours in SHARED.items():
        assert sample[ours].isna().sum() == (raw[theirs] == -1).sum()
        assert sample[ours].sum() == (raw[theirs] == 1).sum()
    assert sample[list(SHARED.values())].isna().any(axis=None)


def test_only_shared_classes_have_metrics(folder: Path) -> None:
    auroc = json.loads((folder / "metrics/test.json").read_text())["auroc"]
    assert {name for name in CLASSES if auroc[name] is not None} <= set(SHARED.values())
    assert auroc["classes_in_mean_15"] == sum(auroc[name] is not None for name in CLASSES) > 4
    classes = json.loads((folder / "metrics/classes.json").read_text())["classes"]
    sample = read_sample(folder / "data/sample.csv")
    in_test = sample[sample["image"].str.startswith("valid/")]
    assert {name: row["images"] for name, row in classes.items()} == {
        name: (in_test[name] <= 1).sum() for name in CLASSES
    }


def test_untrained_classes_have_no_predictions(folder: Path) -> None:
    predictions = pd.read_csv(folder / "data/predictions.csv")
    assert predictions[UNSHARED].isna().all(axis=None)
    assert predictions[list(SHARED.values())].notna().all(axis=None)
    decisions = json.loads((folder / "data/decisions.json").read_text())
    thresholds = dict(zip(CLASSES, decisions["thresholds"], strict=True))
    assert {name for name, value in thresholds.items() if value is None} == set(UNSHARED)


def test_the_report_marks_undefined_values(folder: Path) -> None:
    report = (folder / "plots/report.html").read_text()
    assert "undefined" in report
    assert ">nan" not in report
    assert "nan," not in report


def test_split_warns_of_classes_without_labels(folder: Path) -> None:
    done = run_stage("split", folder)
    assert (
        f"no image has a known label of {', '.join(UNSHARED)}: the networks are not trained on these classes"
        in done.stderr
    )


def test_predict_gives_no_probability_for_untrained_classes(folder: Path) -> None:
    image = next((folder / "raw/valid").rglob("view1_frontal.jpg"))
    done = run_module("tools.predict", folder, str(image), "--json", "answer.json")
    assert done.returncode == 0, done.stderr
    assert f"Not trained, for lack of labels: {', '.join(UNSHARED)}." in done.stdout
    answer = json.loads((folder / "answer.json").read_text())
    probabilities = answer["images"][0]["probabilities"]
    assert {name for name, value in probabilities.items() if value is None} == set(UNSHARED)
    assert {name for name, value in answer["thresholds"].items() if value is None} == set(UNSHARED)
    predictions = pd.read_csv(folder / "data/predictions.csv", index_col="image")
    before = predictions.loc[[str(image.relative_to(folder / "raw"))], list(CLASSES)].to_numpy()
    calibration = Decisions.read(folder / "data/decisions.json").calibration
    after = dict(zip(CLASSES, calibration.apply(before)[0], strict=True))
    for name in SHARED.values():
        assert probabilities[name] == pytest.approx(after[name], abs=1e-6)


def test_an_untrained_class_has_no_saliency_map(folder: Path) -> None:
    image = next((folder / "raw/valid").rglob("view1_frontal.jpg"))
    done = run_module("tools.predict", folder, str(image), "--saliency-maps", "maps", "--class", UNSHARED[0])
    assert f"--class {UNSHARED[0]}: the networks were trained without labels of this class" in error_of(done)


def test_an_exported_file_gives_no_probability_for_untrained_classes(folder: Path) -> None:
    done = run_module("tools.export", folder)
    assert done.returncode == 0, done.stderr
    session = onnxruntime.InferenceSession(folder / "data/ensemble.onnx", providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["untrained"]) == UNSHARED
    probabilities, is_predicted = session.run(None, {"images": np.load(folder / "data/images.npy")[:20]})
    untrained = [CLASSES.index(name) for name in UNSHARED]
    assert np.isnan(probabilities).sum() == np.isnan(probabilities[:, untrained]).sum() == 20 * len(UNSHARED)
    assert not is_predicted[:, untrained].any()
