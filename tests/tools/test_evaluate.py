"""`tools.evaluate`: predictions and networks of anybody on labels of anybody."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from cxr.core.errors import InputError
from cxr.core.files import sha256
from cxr.core.labels import CLASSES, FINDINGS
from cxr.evaluation.decisions import Decisions, fit_decisions
from cxr.evaluation.params import Threshold
from cxr.inference.params import TTA
from cxr.models.classifier import build_classifier
from cxr.models.model_file import save_model
from tests.fixtures.networks import TINY
from tests.fixtures.nih_folder import numbered_rows, write_nih
from tests.fixtures.predictions import tables
from tools.evaluate.command import main
from tools.evaluate.labels import read_labels
from tools.evaluate.names import class_of
from tools.evaluate.predictions import match_predictions, read_predictions

FEW = ("--bootstrap-samples", "100")
FIRST = "00000000_000.png"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Return a function that runs the command in `tmp_path`."""
    monkeypatch.chdir(tmp_path)

    def call(*words: object, few: Sequence[str] = FEW) -> None:
        monkeypatch.setattr(sys, "argv", ["evaluate", *map(str, words), *few])
        main()

    return call


def write_csvs(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write labels.csv and theirs.csv, and return both tables."""
    predictions, labels = tables()
    predictions = predictions.drop(columns=["patient", "split"])
    labels.to_csv(folder / "labels.csv", index=False)
    predictions.to_csv(folder / "theirs.csv", index=False)
    return predictions, labels


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / f"metrics/{name}.json").read_text(encoding="utf-8"))


def test_predictions_of_others_get_all_metrics_and_a_report(tmp_path: Path, run: Any) -> None:
    predictions, labels = write_csvs(tmp_path)
    run("--labels", "labels.csv", "--predictions", "theirs.csv", "--output", "ours")
    metrics = read(tmp_path / "ours", "test")
    for name in CLASSES:
        assert metrics["auroc"][name] == pytest.approx(roc_auc_score(labels[name], predictions[name]), abs=1e-12)
    assert metrics["test_images"] == len(labels)
    points = read(tmp_path / "ours", "operating_points")
    assert points["rule"] == "fixed"
    sensitivity = (predictions["Mass"][labels["Mass"] == 1] >= 0.5).mean()
    assert points["classes"]["Mass"]["sensitivity"]["value"] == pytest.approx(sensitivity)
    external = read(tmp_path / "ours", "external")
    assert (external["decisions"], external["leak"][:28]) == ("fixed", "Whether these patients were ")
    assert external["classes"]["Mass"]["f1_here"] >= external["classes"]["Mass"]["f1"]
    report = (tmp_path / "ours/report.html").read_text(encoding="utf-8")
    assert "<code>tools.evaluate</code>" in report
    assert 'id="external"' in report
    assert 'id="training"' not in report
    assert not (tmp_path / "ours/metrics/duplicates.json").exists()


def test_order_names_and_paths_do_not_matter(tmp_path: Path) -> None:
    predictions, _ = write_csvs(tmp_path)
    names = {name: f"prob_{name.replace('_', ' ').upper()}" for name in CLASSES}
    other = predictions.rename(columns={**names, "image": "Image Index"}).sample(frac=1, random_state=3)
    other["Image Index"] = "some/images/" + other["Image Index"]
    other[reversed(other.columns)].to_csv(tmp_path / "other.csv", index=False)
    labels = read_labels(tmp_path / "labels.csv")
    first, second = (
        match_predictions(read_predictions(tmp_path / name, is_logits=False)[0], labels, Path(name))
        for name in ("theirs.csv", "other.csv")
    )
    pd.testing.assert_frame_equal(first.table, second.table)
    assert np.array_equal(first.probabilities, second.probabilities)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("prob_Atelectasis", "Atelectasis"),
        ("Pleural Thickening", "Pleural_Thickening"),
        ("pleural effusion", "Effusion"),
        ("no finding", "No Finding"),
        ("Mass_prob", "Mass"),
        ("p(Edema)", None),
        ("Lung Lesion", None),
        ("Support Devices", None),
    ],
)
def test_names_of_classes(name: str, expected: str | None) -> None:
    assert class_of(name) == expected


def test_what_one_side_lacks_is_left_out_and_named(
    tmp_path: Path, run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions, labels = write_csvs(tmp_path)
    labels.drop(columns=["patient", "Mass"]).iloc[5:].to_csv(tmp_path / "labels.csv", index=False)
    predictions.drop(columns=["Hernia"]).iloc[:100].to_csv(tmp_path / "theirs.csv", index=False)
    run("--labels", "labels.csv", "--predictions", "theirs.csv", "--output", "ours")
    errors = capsys.readouterr().err
    assert "Left out, since theirs.csv has no values for them: Hernia." in errors
    assert "Left out, since the table of labels (labels.csv) has no values for them: Mass." in errors
    assert "5 images have predictions but no labels, and are left out: 00000000_000.png" in errors
    assert "140 of the 235 labelled images have no predictions." in errors
    assert "labels.csv has no column of patients: the intervals assume that every image is of another patient" in errors
    metrics = read(tmp_path / "ours", "test")
    assert metrics["auroc"]["Hernia"] is None
    assert metrics["auroc"]["Mass"] is None
    assert metrics["auroc"]["classes_in_mean_15"] == 13
    assert read(tmp_path / "ours", "intervals")["patients"] == metrics["test_images"] == 95
    assert "no column of patients" in (tmp_path / "ours/report.html").read_text(encoding="utf-8")


def broken(predictions: pd.DataFrame, kind: str) -> pd.DataFrame:
    table = predictions.astype({"Mass": object})
    if kind == "twice":
        return pd.concat([table, table.iloc[:1]])
    if kind == "same image":
        return pd.concat([table, table.iloc[:1].assign(image="a/" + FIRST)])
    if kind == "logits":
        table.loc[0, "Mass"] = -2.5
    elif kind == "text":
        table.loc[0, "Mass"] = "high"
    elif kind == "partly empty":
        table.loc[0, "Mass"] = ""
    elif kind == "two columns":
        table["prob_mass"] = 0.5
    elif kind == "no image":
        table = table.rename(columns={"image": "number"})
    elif kind == "no class":
        table = table[["image"]]
    elif kind == "elsewhere":
        table["image"] = "x" + table["image"]
    return table


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("twice", r"theirs.csv: 1 images are listed more than once: 00000000_000.png"),
        ("same image", r"00000000_000.png, a/00000000_000.png are the same image"),
        (
            "logits",
            r"1 images have values outside 0 to 1, such as -2.5 for Mass of 00000000_000.png; if these are ",
        ),
        ("text", r"'high' is no probability of Mass for image 00000000_000.png"),
        ("partly empty", r"'' is no probability of Mass for image 00000000_000.png"),
        ("two columns", r"the columns Mass, prob_mass all mean Mass; keep one"),
        ("no image", r"theirs.csv has no column of image names, such as image; its columns are number, "),
        ("no class", r"theirs.csv has no column of a class, such as Mass"),
        ("elsewhere", r"none of its 240 images, such as x00000000_000.png, is in the labels of labels.csv, such as "),
    ],
)
def test_invalid_predictions_give_one_message(tmp_path: Path, run: Any, kind: str, message: str) -> None:
    predictions, _ = write_csvs(tmp_path)
    broken(predictions, kind).to_csv(tmp_path / "theirs.csv", index=False)
    with pytest.raises(InputError, match=message):
        run("--labels", "labels.csv", "--predictions", "theirs.csv", "--output", "ours")
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--labels", "none.csv", "--predictions", "theirs.csv"), r"there is no none.csv; give an existing file"),
        (("--labels", "labels.csv", "--predictions", "none.csv"), r"there is no none.csv; give an existing file"),
        (("--labels", "labels.csv", "--predictions", "theirs.csv", "--list", "test"), r"has no image in such a list"),
        (("--labels", "labels.csv", "--predictions", "theirs.csv", "--threshold", "1"), r"must be between 0 and 1"),
        (("--labels", "labels.csv", "--predictions", "theirs.csv", "--decisions", "x"), r"there is no such file"),
        (("--labels", "labels.csv", "--model", "x.safetensors"), r"x.safetensors is not a model file"),
        (("--labels", "other", "--predictions", "theirs.csv"), r"neither NIH's table .* nor CheXpert's"),
    ],
)
def test_invalid_arguments_give_one_message(tmp_path: Path, run: Any, words: Sequence[str], message: str) -> None:
    write_csvs(tmp_path)
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match=message):
        run(*words, "--output", "ours")
    assert not (tmp_path / "ours").exists()


def test_a_folder_with_other_files_is_not_replaced(tmp_path: Path, run: Any) -> None:
    write_csvs(tmp_path)
    with pytest.raises(InputError, match="this folder has other files; give a new folder"):
        run("--labels", "labels.csv", "--predictions", "theirs.csv", "--output", tmp_path)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("Mass", "2", r"labels are 0, 1 or, if unknown, empty\): invalid Mass '2' of image 00000000_000.png"),
        ("image", "00000001_000.png", r"1 images are listed more than once: 00000001_000.png"),
        ("patient", "", r"1 images have no patient"),
    ],
)
def test_invalid_labels_give_one_message(tmp_path: Path, column: str, value: str, message: str) -> None:
    _, labels = tables()
    labels = labels.astype({column: object})
    labels.loc[0, column] = value
    labels.to_csv(tmp_path / "labels.csv", index=False)
    with pytest.raises(InputError, match=message):
        read_labels(tmp_path / "labels.csv")


def test_labels_may_have_metadata_unknown_values_and_names_of_patients(tmp_path: Path) -> None:
    lines = ["file,Subject ID,Gender,Age,Edema", "a.png,p-1,Female,61,1", "b.png,p-2,M,,", "c.png,p-1,,7,0.0"]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    table = read_labels(tmp_path / "labels.csv").table
    assert table["patient"].tolist() == [0, 1, 0]
    assert table["sex"].tolist() == ["F", "M", ""]
    assert table["age"].tolist() == [61, pd.NA, 7]
    assert table["Edema"].tolist() == [1, 255, 0]
    assert (table["Mass"] == 255).all()


def test_logits_become_probabilities(tmp_path: Path) -> None:
    predictions, _ = write_csvs(tmp_path)
    logits = predictions.copy()
    for name in CLASSES:
        logits[name] = np.log(predictions[name] / (1 - predictions[name]))
    logits.to_csv(tmp_path / "logits.csv", index=False)
    table, _ = read_predictions(tmp_path / "logits.csv", is_logits=True)
    np.testing.assert_allclose(table[list(CLASSES)], predictions[list(CLASSES)], rtol=1e-12)


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """A folder in NIH's layout with an unreadable image, a network trained on patients 0 and 1, and its decisions."""
    write_nih(tmp_path / "nih", numbered_rows(46, each=2), side=32)
    (tmp_path / "nih/images/00000045_000.png").write_bytes(b"damaged")
    torch.manual_seed(7)
    save_model(build_classifier(TINY), TINY, {"seed": 1, "patients": [0, 1]}, tmp_path / "net-1.safetensors")
    random = np.random.default_rng(1)
    labels = (random.random((60, 15)) < 0.4).astype(np.uint8)
    decisions = fit_decisions(
        labels,
        random.random((60, 15)) * 0.5 + 0.25 * labels,
        Threshold(rule="youden", sensitivity=0.9),
        sha256={"net-1": sha256(tmp_path / "net-1.safetensors")},
        tta=TTA(hflip=True, translate=0, scale=0, five_crop=0),
        synthetic=False,
    )
    decisions.write(tmp_path / "decisions.json")
    return tmp_path


def test_a_network_keeps_its_decisions_on_other_images(network: Path, run: Any) -> None:
    words = ("--labels", "nih", "--model", "net-1.safetensors", "--decisions", "decisions.json", "--output", "out")
    with pytest.raises(InputError, match=r"trained on 2 patients with these numbers, such as 0: .* --patients exclude"):
        run(*words)
    assert not (network / "out").exists()
    with pytest.raises(InputError, match=r"1 images cannot be read and are left out"):
        run(*words, "--patients", "exclude")
    decisions, out = Decisions.read(network / "decisions.json"), network / "out"
    points, external = read(out, "operating_points"), read(out, "external")
    calibration = read(out, "calibration")["classes"]
    assert points["rule"] == "youden"
    assert [points["classes"][name]["threshold"] for name in CLASSES] == decisions.thresholds.tolist()
    assert [calibration[name]["slope"] for name in CLASSES] == decisions.calibration.slope.tolist()
    assert (external["decisions"], external["rule_here"][:14]) == ("carried over", "maximum Youden")
    assert external["leak"] == "2 patients of the training or validation data are left out."
    predicted = pd.read_csv(out / "predictions.csv")
    assert (len(predicted), predicted["patient"].min()) == (41, 2)
    assert not (out / "images.npy").exists()
    report = (out / "report.html").read_text(encoding="utf-8")
    assert "data:image/png" in report
    assert "chosen on the original validation images" in report


def test_a_network_without_decisions_or_known_patients(network: Path, run: Any) -> None:
    save_model(build_classifier(TINY), TINY, {"untrained": ["Mass"]}, network / "other.safetensors")
    (network / "nih/images/00000045_000.png").unlink()
    run("--labels", "nih", "--model", "other.safetensors", "--threshold", 0.4, "--output", "out")
    external = read(network / "out", "external")
    assert external["leak"] == "Whether these patients were used for training is not known."
    assert external["classes"]["Edema"]["threshold"] == 0.4
    assert "1 labelled images are not in nih, and are left out: 00000045_000.png." in external["notes"]
    assert pd.read_csv(network / "out/predictions.csv")["Mass"].isna().all()
    assert read(network / "out", "members")["members"].keys() == {"other-0"}


@pytest.mark.real_data
@pytest.mark.slow
def test_published_predictions_give_the_published_aurocs(shared: Path, tmp_path: Path, run: Any) -> None:
    published = shared / "published/jrzech-2022"
    run("--labels", shared / "nih-metadata", "--predictions", published / "preds.csv", "--output", "out")
    metrics, intervals = read(tmp_path / "out", "test"), read(tmp_path / "out", "intervals")
    expected = pd.read_csv(published / "aucs.csv", index_col="label")["auc"]
    assert len(expected) == 14
    for name, value in expected.items():
        key = str(name).replace(" ", "_")
        assert key in FINDINGS
        assert metrics["auroc"][key] == pytest.approx(value, abs=1e-12)
        assert intervals["auroc"][key]["low"] < value < intervals["auroc"][key]["high"]
    assert metrics["test_images"] == 22_433
    assert intervals["patients"] == 6_187
    assert metrics["auroc"]["No Finding"] is None
