"""Measure the ensemble on test, with thresholds and calibration that validation chose.

Reads: `data/sample.csv`, `data/split.csv`, `data/images.npy`, `data/models/`, `data/curves.csv`, and in `raw_dir`
    whether the images are synthetic.
Writes: `metrics/test.json` (the headlines), `metrics/classes.json` (every class), `metrics/intervals.json`,
    `metrics/operating_points.json`, `metrics/calibration.json`, `metrics/subgroups.json`, `metrics/duplicates.json`
    (images in two splits that look like one film), `data/predictions.csv` (image, patient, split, 15 probabilities, for
    val and test), `data/decisions.json` (calibration and thresholds for these probabilities) and `plots/`.
Alone: `python -m stages.evaluate`
"""

import os

# Before PyTorch loads: threads that wait must sleep. On a busy CPU, spinning makes a step up to 75 times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cxr import calibration, evidence, networks, plots
from cxr.batches import Pixels, open_images
from cxr.calibration import Calibration
from cxr.duplicates import near_duplicates
from cxr.errors import InputError, run_as_script, warn
from cxr.evidence import headlines, measure
from cxr.files import replacing, write_csv, write_json
from cxr.findings import CLASSES
from cxr.intervals import auroc_and_average_precision, resample_patients
from cxr.params import EvaluateParams, read_params
from cxr.paths import CURVES, DECISIONS, IMAGES, METRICS, PLOTS, PREDICTIONS, SAMPLE, SPLIT, model_file
from cxr.runtime import explaining_limits, prepare
from cxr.tables import is_synthetic, label_matrix, read_sample_with_split
from cxr.thresholds import choose
from cxr.views import list_views, predict_probabilities

BOOTSTRAP_SEED = 1


class Decisions(NamedTuple):
    """What validation chose."""

    calibration: Calibration
    thresholds: NDArray[np.float64]  # of probabilities before calibration, float [15]


class Test(NamedTuple):
    """The test images, and what the ensemble says of them."""

    table: pd.DataFrame
    labels: NDArray[np.uint8]  # [images, 15]
    probabilities: NDArray[np.float64]  # [images, 15], before calibration
    rows: NDArray[np.int64]  # in `data/images.npy`
    note: str  # what pictures are called


def main() -> None:
    """Predict val and test, decide on val, measure test, write everything."""
    params = read_params(EvaluateParams)
    device = prepare(params.threads, params.deterministic)
    whole = read_sample_with_split(SAMPLE, SPLIT)
    images = open_images(IMAGES, len(whole))
    rows = np.flatnonzero(whole["split"] != "train")
    table, in_test = whole.iloc[rows], (whole["split"].iloc[rows] == "test").to_numpy()
    seen_by_no_member(params, set(table["patient"][in_test]))
    probabilities = ensemble(params, Pixels(images, rows, device), images.shape[1], device)
    decisions = decide(label_matrix(table)[~in_test], probabilities[~in_test], params)
    write_predictions(table, probabilities)
    write_decisions(decisions, params)

    synthetic = is_synthetic(params.raw_dir)
    note = "synthetic demo images" if synthetic else f"{in_test.sum():,} test images"
    test = Test(table[in_test], label_matrix(table)[in_test], probabilities[in_test], rows[in_test], note)
    classes = measure(test.labels, test.probabilities, decisions.thresholds)
    write_metrics(test, classes, decisions, params, synthetic)
    report_duplicates(images, whole)
    draw_plots(test, classes, decisions, params, lambda place: images[test.rows[place]])


def seen_by_no_member(params: EvaluateParams, patients: set[int]) -> None:
    """Refuse networks that were trained on patients of test, or chosen by them.

    Raises:
        InputError: naming the network and some of the patients.
    """
    for path in member_files(params):
        known = sorted(patients & set(networks.describe(path).get("patients", [])))
        if known:
            raise InputError(
                f"{path} has seen {len(known):,} patients of test in training, as {known[0]}: its figures would be too "
                "good. Train again, or take the split that it was trained with"
            )


def member_files(params: EvaluateParams) -> list[Path]:
    """The files of `models` x `seeds`."""
    return [model_file(model, seed) for model in params.models for seed in params.seeds]


def ensemble(params: EvaluateParams, pixels: Pixels, image_size: int, device: torch.device) -> NDArray[np.float64]:
    """The mean probability of `models` x `seeds`, float64 [images, 15].

    Raises:
        InputError: where a member is missing, broken, or was trained on images of another size.
    """
    members, views = member_files(params), list_views(params.views)
    total = np.zeros((len(pixels), len(CLASSES)))
    for path in members:
        classifier, about = networks.load(path)
        if about["image_size"] != image_size:
            raise InputError(f"{path} was trained at {about['image_size']} px, {IMAGES} has {image_size}; train again")
        with explaining_limits():
            total += predict_probabilities(classifier.to(device), pixels, params.batch_size, views)
    return total / len(members)


def decide(labels: NDArray[np.uint8], probabilities: NDArray[np.float64], params: EvaluateParams) -> Decisions:
    """Calibration and thresholds, from validation alone."""
    thresholds = choose(params.threshold.rule, labels, probabilities, params.threshold.sensitivity)
    return Decisions(calibration.fit(labels, probabilities), thresholds)


def write_decisions(decisions: Decisions, params: EvaluateParams) -> None:
    """Write what goes with the networks: how probabilities are calibrated, and from where on a class is called."""
    calibrated = decisions.calibration.apply(decisions.thresholds[None])[0]
    content = {
        "members": [path.stem for path in member_files(params)],
        "classes": list(CLASSES),
        "calibration": decisions.calibration.to_dict(),
        "rule": params.threshold.rule,
        "thresholds": decisions.thresholds.tolist(),
        "calibrated_thresholds": calibrated.tolist(),
    }
    write_json(content, DECISIONS)


def write_metrics(
    test: Test, classes: pd.DataFrame, decisions: Decisions, params: EvaluateParams, synthetic: bool
) -> None:
    """Write `metrics/`, and print the headline."""
    labels, probabilities = test.labels, test.probabilities
    called = probabilities >= decisions.thresholds
    drawn = resample_patients(test.table["patient"], params.resamples, BOOTSTRAP_SEED)
    ranks = auroc_and_average_precision(labels, probabilities, drawn)
    intervals = evidence.intervals(*ranks, drawn)
    errors = evidence.calibration_errors(labels, probabilities, decisions.calibration, params.calibration_bins)
    points = evidence.operating_points(labels, called, decisions.thresholds, params.threshold.rule, drawn)
    for name, content in {
        "test": headlines(classes, errors, len(labels), synthetic),
        "classes": {"synthetic": synthetic, "classes": evidence.by_class(classes)},
        "intervals": intervals,
        "operating_points": points,
        "calibration": {"bins": params.calibration_bins, "classes": errors.to_dict("index")},
        "subgroups": evidence.subgroups(test.table, labels, probabilities, drawn),
    }.items():
        write_json(content, METRICS / f"{name}.json")
    report(classes, intervals["auroc"]["mean_15"], len(labels), synthetic)


def write_predictions(table: pd.DataFrame, probabilities: NDArray[np.float64]) -> None:
    """Write the probabilities of val and test images, to the last digit: the metrics follow from them."""
    columns = pd.DataFrame(probabilities, columns=list(CLASSES), index=table.index)
    write_csv(pd.concat([table[["image", "patient", "split"]], columns], axis=1), PREDICTIONS)


def report_duplicates(images: NDArray[np.uint8], whole: pd.DataFrame) -> None:
    """Write the pairs of images in different splits that look like one film, and warn of them.

    Never an error: it would cost a finished training, and only a person can tell.
    """
    pairs = near_duplicates(images, list(whole["image"]), list(whole["split"]))
    write_json({"pairs": pairs.to_dict("records")}, METRICS / "duplicates.json")
    if len(pairs):
        first = pairs.iloc[0]
        warn(
            f"{len(pairs):,} pairs of images in different splits look like one film, as {first['image_a']} and "
            f"{first['image_b']}: see {METRICS / 'duplicates.json'}"
        )


def draw_plots(
    test: Test,
    classes: pd.DataFrame,
    decisions: Decisions,
    params: EvaluateParams,
    image: Callable[[int], NDArray[np.uint8]],
) -> None:
    """Write `plots/`: CSV for `dvc plots`, and PNGs for people."""
    labels, probabilities, note, curves = test.labels, test.probabilities, test.note, pd.read_csv(CURVES)
    after, bins = decisions.calibration.apply(probabilities), params.calibration_bins
    intervals, subgroups = (json.loads((METRICS / f"{name}.json").read_text()) for name in ("intervals", "subgroups"))
    roc, precision_recall = (
        plots.roc_curves(labels, probabilities),
        plots.precision_recall_curves(labels, probabilities),
    )
    with replacing(PLOTS) as folder:
        folder.mkdir()
        plots.write_curves(roc, folder / "roc")
        plots.write_curves(precision_recall, folder / "precision_recall")
        curves.to_csv(folder / "training.csv", index=False)
        classes[["auroc", "average_precision", "positives"]].to_csv(folder / "classes.csv")
        plots.confusion_table(classes).to_csv(folder / "confusion.csv", index=False)
        plots.draw_curves(roc, f"ROC by class, {note}", folder / "roc.png")
        plots.draw_curves(precision_recall, f"Precision and recall by class, {note}", folder / "precision_recall.png")
        plots.draw_classes(classes, intervals["auroc"], note, folder / "classes.png")
        plots.draw_subgroups(subgroups, note, folder / "subgroups.png")
        plots.draw_reliability(labels, probabilities, after, bins, note, folder / "reliability.png")
        plots.draw_confusion(classes, note, folder / "confusion.png")
        plots.draw_training(curves, note, folder / "training.png")
        plots.draw_samples(image, labels, probabilities, note, folder / "sample_images.png")


def report(test: pd.DataFrame, mean: dict[str, float | None], images: int, synthetic: bool) -> None:
    """Print the headline with its interval, and name every class that it leaves out."""
    undefined = list(test.index[test["auroc"].isna()])
    if undefined:
        warn(f"no AUROC, for want of positives or negatives in test: {', '.join(undefined)}; left out of the means")
    kind = "synthetic test images" if synthetic else "test images"
    interval = "no interval" if mean["low"] is None else f"95 % interval {mean['low']:.4f} to {mean['high']:.4f}"
    value = "undefined" if mean["value"] is None else f"{mean['value']:.4f}"
    print(f"mean AUROC {value} ({interval}) over {test['auroc'].notna().sum()} classes, {images:,} {kind}")


if __name__ == "__main__":
    run_as_script(main)
