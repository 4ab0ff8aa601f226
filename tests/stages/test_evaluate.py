import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import average_precision_score, brier_score_loss, f1_score, roc_auc_score

from cxr.core.errors import InputError
from cxr.core.files import sha256
from cxr.core.labels import CLASSES, NO_FINDING
from cxr.evaluation.calibration import fit
from cxr.evaluation.decisions import Decisions
from cxr.evaluation.schema import Interval
from cxr.inference.params import TTA
from cxr.inference.saliency import grad_cam
from cxr.models.model_file import load_model
from cxr.reporting.text import format_ci
from stages import evaluate, train
from tests.fixtures.planted import save_images, write_planted, write_planted_params


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two trained members, evaluated."""
    folder = tmp_path_factory.mktemp("trained")
    write_planted(folder)
    write_planted_params(folder, seeds=[1, 2], epochs=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train.main()
        evaluate.main()
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, to do anything with."""
    copy = shutil.copytree(trained, tmp_path / "copy")
    write_planted_params(copy, seeds=[1, 2], epochs=2)
    monkeypatch.chdir(copy)
    return copy


def read_metrics(folder: Path, name: str = "test") -> Any:
    return json.loads((folder / f"metrics/{name}.json").read_text(encoding="utf-8"))


def truth_and_probabilities(folder: Path, split: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    predictions = pd.read_csv(folder / "data/predictions.csv").query("split == @split").set_index("image")
    sample = pd.read_csv(folder / "data/sample.csv").set_index("image").loc[predictions.index]
    return sample[list(CLASSES)], predictions[list(CLASSES)]


def test_predictions_are_of_val_and_test_in_order(folder: Path) -> None:
    predictions, split = pd.read_csv(folder / "data/predictions.csv"), pd.read_csv(folder / "data/split.csv")
    expected = split[split["split"] != "train"].reset_index(drop=True)
    pd.testing.assert_frame_equal(predictions[["image", "patient", "split"]], expected)
    assert list(predictions.columns[3:]) == list(CLASSES)


def test_the_summary_metrics_are_those_of_scikit_learn(folder: Path) -> None:
    truth, probabilities = truth_and_probabilities(folder, "test")
    metrics = read_metrics(folder)
    aurocs = {name: roc_auc_score(truth[name], probabilities[name]) for name in CLASSES}
    for name, value in aurocs.items():
        assert metrics["auroc"][name] == pytest.approx(value, abs=1e-12)
    assert metrics["auroc"]["mean_15"] == pytest.approx(np.mean(list(aurocs.values())))
    assert metrics["auroc"]["mean_14"] == pytest.approx(
        np.mean([value for name, value in aurocs.items() if name != NO_FINDING])
    )
    assert metrics["average_precision"]["mean_15"] == pytest.approx(
        np.mean([average_precision_score(truth[name], probabilities[name]) for name in CLASSES])
    )
    assert metrics["test_images"] == len(truth)
    assert metrics["synthetic_test_images"] == 0


def test_predicted_positives_use_thresholds_chosen_on_validation(folder: Path) -> None:
    classes = read_metrics(folder, "classes")["classes"]
    thresholds = pd.Series({name: row["threshold"] for name, row in classes.items()})
    truth, probabilities = truth_and_probabilities(folder, "val")
    for name in CLASSES:
        best = max(f1_score(truth[name], probabilities[name] >= value) for value in probabilities[name])
        assert f1_score(truth[name], probabilities[name] >= thresholds[name]) == pytest.approx(best)
    truth, probabilities = truth_and_probabilities(folder, "test")
    decisions = probabilities >= thresholds
    metrics = read_metrics(folder)
    assert metrics["hamming_accuracy"] == pytest.approx((decisions == truth).to_numpy().mean())
    assert metrics["exact_match"] == pytest.approx((decisions == truth).all(axis=1).mean())
    for name, row in classes.items():
        assert row["accuracy"] == pytest.approx((decisions[name] == truth[name]).mean())
        assert row["f1"] == pytest.approx(f1_score(truth[name], decisions[name]))


def test_an_ensemble_is_the_mean_of_its_members(folder: Path) -> None:
    both = pd.read_csv(folder / "data/predictions.csv")[list(CLASSES)]
    members = read_metrics(folder, "members")["members"]
    single = []
    for seed in (1, 2):
        write_planted_params(folder, seeds=[seed], epochs=2)
        evaluate.main()
        single.append(pd.read_csv(folder / "data/predictions.csv")[list(CLASSES)])
        alone = members[f"test_resnet-{seed}"]["auroc"]
        assert alone == {name: read_metrics(folder, "intervals")["auroc"][name] for name in alone}
    pd.testing.assert_frame_equal(both, (single[0] + single[1]) / 2, atol=1e-6)
    assert (single[0] - single[1]).abs().to_numpy().max() > 1e-3


def test_mean_aurocs_of_ensemble_and_members_are_printed(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    evaluate.main()
    report = read_metrics(folder, "members")
    ensemble = report["ensemble"]["auroc"]
    assert ensemble == {name: read_metrics(folder, "intervals")["auroc"][name] for name in ("mean_15", "mean_14")}
    assert report["models"]["test_resnet"]["seeds"] == 2
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    for line, (name, member) in zip(lines, report["members"].items(), strict=False):
        mean, gain = member["auroc"]["mean_15"], member["gain"]["mean_15"]
        assert line.startswith(f"{name}: mean AUROC {mean['value']:.4f} (95 % CI {mean['low']:.4f} to ")
        assert gain["value"] == pytest.approx(ensemble["mean_15"]["value"] - mean["value"])
    assert lines[2].startswith(f"mean AUROC {ensemble['mean_15']['value']:.4f} (")


def test_tta_views_are_averaged_in_val_and_test(folder: Path) -> None:
    plain = pd.read_csv(folder / "data/predictions.csv")
    views = {"hflip": True, "translate": 0.0, "scale": 0.0, "five_crop": 0.0}
    write_planted_params(folder, seeds=[1, 2], epochs=2, tta=views)
    evaluate.main()
    flipped = pd.read_csv(folder / "data/predictions.csv")
    changed = (plain[list(CLASSES)] - flipped[list(CLASSES)]).abs().max(axis=1) > 1e-4
    assert changed.groupby(plain["split"]).all().to_dict() == {"val": True, "test": True}


def test_the_same_inputs_give_the_same_bytes(folder: Path) -> None:
    def files() -> dict[str, bytes]:
        paths = [
            *folder.glob("metrics/*"),
            *folder.glob("plots/**/*"),
            folder / "data/predictions.csv",
            folder / "data/decisions.json",
        ]
        return {str(path): path.read_bytes() for path in paths if path.is_file()}

    first = files()
    evaluate.main()
    assert files() == first
    assert len(first) == 14 + 30 + 3 + 9 + 2


def test_a_class_without_positives_has_no_auroc(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample = pd.read_csv(folder / "data/sample.csv")
    in_test = pd.read_csv(folder / "data/split.csv")["split"] == "test"
    before = sample.copy()
    try:
        sample.loc[in_test, "Hernia"] = 0
        sample.to_csv(folder / "data/sample.csv", index=False)
        evaluate.main()
        metrics = read_metrics(folder)
        assert metrics["auroc"]["Hernia"] is None
        assert metrics["auroc"]["classes_in_mean_15"] == 14
        defined = [metrics["auroc"][name] for name in CLASSES if name != "Hernia"]
        assert metrics["auroc"]["mean_15"] == pytest.approx(np.mean(defined))
        assert "the AUROC of Hernia is undefined" in capsys.readouterr().err
    finally:
        before.to_csv(folder / "data/sample.csv", index=False)


def test_confusion_counts_every_test_image_of_every_class(folder: Path) -> None:
    table = pd.read_csv(folder / "plots/confusion.csv")
    assert (table.groupby("class")["images"].sum() == read_metrics(folder)["test_images"]).all()
    positives = table[table["actual"] == 1].groupby("class")["images"].sum()
    truth, _ = truth_and_probabilities(folder, "test")
    assert positives.to_dict() == truth.sum().to_dict()


def test_the_area_under_the_roc_points_is_the_auroc(folder: Path) -> None:
    for name in CLASSES:
        curve = pd.read_csv(folder / f"plots/roc/{name.replace(' ', '_')}.csv")
        area = np.trapezoid(curve["true_positive_rate"], curve["false_positive_rate"])
        assert area == pytest.approx(read_metrics(folder)["auroc"][name], abs=0.005)


def test_synthetic_images_are_counted_as_synthetic(folder: Path) -> None:
    marker = folder / "SYNTHETIC.txt"
    marker.touch()
    try:
        evaluate.main()
        metrics = read_metrics(folder)
        assert metrics["synthetic_test_images"] == metrics["test_images"]
        assert read_metrics(folder, "classes")["synthetic"] is True
    finally:
        marker.unlink()


def test_a_missing_member_is_named(folder: Path) -> None:
    write_planted_params(folder, seeds=[1, 3], epochs=2)
    with pytest.raises(InputError, match=r"test_resnet-3\.safetensors is not a model file"):
        evaluate.main()


def test_images_of_another_size_are_named(folder: Path) -> None:
    images = np.load(folder / "data/images.npy")
    try:
        save_images(folder, images.repeat(2, axis=1).repeat(2, axis=2))
        with pytest.raises(InputError, match=r"expects 32 px, but data/images\.npy has 64 px"):
            evaluate.main()
    finally:
        save_images(folder, images)


def test_a_split_of_another_sample_is_named(folder: Path) -> None:
    split = pd.read_csv(folder / "data/split.csv")
    try:
        split.iloc[:-1].to_csv(folder / "data/split.csv", index=False)
        with pytest.raises(InputError, match=r"split\.csv does not match data/sample\.csv"):
            evaluate.main()
    finally:
        split.to_csv(folder / "data/split.csv", index=False)


def test_intervals_contain_the_values_of_the_summary_metrics(folder: Path) -> None:
    metrics, intervals = read_metrics(folder), read_metrics(folder, "intervals")
    for measure in ("auroc", "average_precision"):
        for name, entry in intervals[measure].items():
            assert entry["low"] < entry["value"] < entry["high"]
            if name in metrics[measure]:
                assert entry["value"] == pytest.approx(metrics[measure][name], abs=1e-12)
    split = pd.read_csv(folder / "data/split.csv")
    assert intervals["patients"] == split.loc[split["split"] == "test", "patient"].nunique()
    assert intervals["bootstrap_samples"] == 1000


def test_operating_points_are_the_rates_on_test(folder: Path) -> None:
    truth, probabilities = truth_and_probabilities(folder, "test")
    for name, point in read_metrics(folder, "operating_points")["classes"].items():
        positive, labelled = probabilities[name] >= point["threshold"], truth[name] == 1
        assert point["sensitivity"]["value"] == pytest.approx(positive[labelled].mean())
        assert point["specificity"]["value"] == pytest.approx((~positive)[~labelled].mean())
        assert point["ppv"]["value"] == pytest.approx(labelled[positive].mean())
        assert point["npv"]["value"] == pytest.approx((~labelled)[~positive].mean())


def test_another_rule_chooses_other_thresholds(folder: Path) -> None:
    write_planted_params(folder, seeds=[1, 2], epochs=2, threshold={"rule": "sensitivity", "sensitivity": 0.9})
    evaluate.main()
    truth, probabilities = truth_and_probabilities(folder, "val")
    points = read_metrics(folder, "operating_points")
    assert points["rule"] == "sensitivity"
    for name, point in points["classes"].items():
        positives = probabilities.loc[truth[name] == 1, name]
        assert (positives >= point["threshold"]).mean() >= 0.9
        assert (positives > point["threshold"]).mean() < 0.9


def test_decisions_give_the_reported_calibration_errors(folder: Path) -> None:
    decisions = Decisions.read(folder / "data/decisions.json")
    assert decisions.tta == TTA(hflip=False, translate=0, scale=0, five_crop=0)
    assert not decisions.synthetic
    files = [folder / f"data/models/{member}.safetensors" for member in decisions.members]
    assert decisions.sha256 == tuple(map(sha256, files))
    fitted = decisions.calibration
    val_truth, val = truth_and_probabilities(folder, "val")
    assert np.array_equal(fitted.slope, fit(val_truth.to_numpy(np.uint8), val.to_numpy()).slope)
    truth, probabilities = truth_and_probabilities(folder, "test")
    after = fitted.apply(probabilities.to_numpy())
    report = read_metrics(folder, "calibration")["classes"]
    for column, name in enumerate(CLASSES):
        assert report[name]["brier_before"] == pytest.approx(brier_score_loss(truth[name], probabilities[name]))
        assert report[name]["brier_after"] == pytest.approx(brier_score_loss(truth[name], after[:, column]))
    positive, positive_after = probabilities >= decisions.thresholds, after >= decisions.calibrated_thresholds
    assert np.array_equal(positive.to_numpy(), positive_after)


def test_subgroups_are_measured_on_their_own_images(folder: Path) -> None:
    sample = pd.read_csv(folder / "data/sample.csv")
    before = sample.copy()
    try:
        sample["sex"] = np.where(sample["patient"] % 2, "F", "M")
        sample.to_csv(folder / "data/sample.csv", index=False)
        evaluate.main()
    finally:
        before.to_csv(folder / "data/sample.csv", index=False)
    truth, probabilities = truth_and_probabilities(folder, "test")
    women = sample.set_index("image").loc[truth.index, "sex"] == "F"
    report = read_metrics(folder, "subgroups")["sex"]
    assert report["groups"]["F"]["images"] == women.sum()
    shown = [name for name in CLASSES if report["groups"]["F"]["auroc"][name]["value"] is not None]
    assert shown
    for name in shown:
        expected = roc_auc_score(truth.loc[women, name], probabilities.loc[women, name])
        assert report["groups"]["F"]["auroc"][name]["value"] == pytest.approx(expected)
        assert report["groups"]["F"]["positives"][name] == truth.loc[women, name].sum()
    gap = report["largest_gap"]["mean"]
    means = {name: group["auroc"]["mean"]["value"] for name, group in report["groups"].items()}
    assert gap["value"] == pytest.approx(means[gap["highest"]] - means[gap["lowest"]])
    assert gap["low"] <= gap["value"] <= gap["high"]


def test_a_member_trained_on_a_test_patient_is_an_error(folder: Path) -> None:
    split = pd.read_csv(folder / "data/split.csv")
    before = split.copy()
    leaked = int(split.loc[split["split"] == "train", "patient"].iloc[0])
    try:
        split.loc[split["patient"] == leaked, "split"] = "test"
        split.to_csv(folder / "data/split.csv", index=False)
        with pytest.raises(InputError, match=rf"was trained on 1 patients of test, such as {leaked}:"):
            evaluate.main()
    finally:
        before.to_csv(folder / "data/split.csv", index=False)


def test_a_copy_in_another_split_is_reported_with_a_warning(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, split = np.load(folder / "data/images.npy"), pd.read_csv(folder / "data/split.csv")
    kept = images.copy()
    one, other = (int(np.flatnonzero(split["split"] == name)[3]) for name in ("train", "test"))
    try:
        images[one] = np.random.default_rng(5).integers(0, 256, images[one].shape)
        images[other] = images[one]
        save_images(folder, images)
        evaluate.main()
    finally:
        save_images(folder, kept)
    pairs = {(pair["image_a"], pair["image_b"]) for pair in read_metrics(folder, "duplicates")["pairs"]}
    assert (split["image"][one], split["image"][other]) in pairs
    assert "look like the same radiograph" in capsys.readouterr().err


def test_saliency_maps_and_controls_are_scored_on_the_boxes_of_test(folder: Path) -> None:
    split = pd.read_csv(folder / "data/split.csv")
    test = split[split["split"] == "test"]["image"].tolist()
    train = split[split["split"] == "train"]["image"].tolist()
    rows = [f"{image},Mass,512,256,256,256" for image in [*test[:5], *train[:3]]]
    text = "\n".join(["Image Index,Finding Label,Bbox [x,y,w,h],,,", *rows])
    (folder / "BBox_List_2017.csv").write_text(text, encoding="utf-8")
    evaluate.main()
    localisation = read_metrics(folder, "localisation")
    mass = localisation["classes"]["Mass"]
    assert (localisation["all"]["boxes"], mass["images"], localisation["mean"]["classes"]) == (5, 5, 1)
    assert set(mass["scores"]["energy"]) == {"grad_cam", "layer_cam", "random", "centre", "prior"}
    # Expected: the mean of both members' maps, and the fraction of it in the box.
    classifiers = [load_model(path)[0] for path in sorted((folder / "data/models").iterdir())]
    images = np.load(folder / "data/images.npy")[split["image"].isin(test[:5])]
    pixels, column = torch.from_numpy(images)[:, None] / 255, torch.full((5,), CLASSES.index("Mass"))
    maps = sum(grad_cam(classifier, pixels, column).double() for classifier in classifiers).numpy()  # type: ignore[union-attr]
    # A map of zeros has an energy of 0.
    inside = maps[:, 8:16, 16:24].sum(axis=(1, 2)) / np.maximum(maps.sum(axis=(1, 2)), 1e-30)
    assert mass["scores"]["energy"]["grad_cam"]["value"] == pytest.approx(inside.mean(), abs=1e-5)


def test_the_report_shows_this_run(folder: Path) -> None:
    page = (folder / "plots/report.html").read_text(encoding="utf-8")
    intervals = read_metrics(folder, "intervals")["auroc"]
    for name in ("mean_15", "mean_14", *CLASSES):
        assert f"{format_ci(Interval(**intervals[name]))}<" in page
    assert "synthetic" not in page
    assert str(folder) not in page
    # Each example twice: the image, and the image with its saliency map.
    assert page.count("data:image/png") == 12


def test_without_boxes_there_is_no_localisation(folder: Path) -> None:
    assert read_metrics(folder, "localisation")["all"]["boxes"] == 0
