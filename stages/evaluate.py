"""Measure the ensemble on test, with thresholds and calibration that validation chose.

Reads: `data/sample.csv`, `data/split.csv`, `data/images.npy`, `data/models/`, `data/curves.csv`, and in `raw_dir`
    boxes and whether the images are synthetic.
Writes: `metrics/test.json` (the headlines), `metrics/classes.json` (every class), `metrics/intervals.json`,
    `metrics/operating_points.json`, `metrics/calibration.json`, `metrics/subgroups.json`, `metrics/members.json` (the
    ensemble beside each of its networks), `metrics/localisation.json` (class maps on boxes), `metrics/data.json` (what
    is in each split), `metrics/duplicates.json` (images in two splits that look like one film), `data/predictions.csv`
    (image, patient, split, 15 probabilities, for val and test), `data/decisions.json` (calibration and thresholds for
    these probabilities, and of which networks and views these are) and `plots/`, in it `report.html`, which tells all
    of it to people.
Alone: `python -m stages.evaluate`
"""

import cxr.core.threads  # noqa: F401 (must precede the import of PyTorch)

# isort: split
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cxr.core.errors import InputError, run_as_script, warn
from cxr.core.files import atomic_write, sha256, write_csv, write_json
from cxr.core.labels import CLASSES, UNKNOWN
from cxr.core.params import read_params
from cxr.core.paths import DECISIONS, IMAGES, METRICS, PLOTS, PREDICTIONS, SAMPLE, SPLIT
from cxr.core.progress import progress
from cxr.core.tables import is_synthetic, label_matrix, read_sample_with_split
from cxr.datasets.boxes import boxes_of_images, read_boxes
from cxr.datasets.registry import name_of
from cxr.evaluation import localisation, summary
from cxr.evaluation.bootstrap import BootstrapSamples, auroc_and_average_precision, bootstrap_patients
from cxr.evaluation.decisions import Decisions, decide
from cxr.evaluation.ensemble_gain import ensemble_gain
from cxr.evaluation.near_duplicates import near_duplicates
from cxr.evaluation.params import EvaluateParams
from cxr.evaluation.summary import class_metrics, summary_metrics
from cxr.inference.ensemble import check_no_leak, load_members, mean_saliency_maps, predict_members
from cxr.inference.saliency import fine_grid, supported_methods
from cxr.inference.tta import tta_views
from cxr.models.classifier import Classifier
from cxr.models.device import init_device
from cxr.models.image_store import ImageStore, open_images
from cxr.models.members import Member, list_members
from cxr.reporting import plots
from cxr.reporting.examples import Predicted, collect_examples
from cxr.reporting.report import Run, gather_run, write_report

BOOTSTRAP_SEED = 1


class Test(NamedTuple):
    """The test images, and what the ensemble and its members say of them."""

    table: pd.DataFrame
    labels: NDArray[np.uint8]  # [images, 15]
    by_member: dict[Member, NDArray[np.float64]]  # [images, 15], before calibration
    probabilities: NDArray[np.float64]  # their mean
    images: NDArray[np.uint8]  # of all splits
    rows: NDArray[np.int64]  # where in `images` they are
    note: str  # what pictures are called


def main() -> None:
    """Predict val and test, decide on val, measure test, write everything."""
    params = read_params(EvaluateParams)
    device = init_device(params.threads, params.deterministic)
    whole = read_sample_with_split(SAMPLE, SPLIT)
    images = open_images(IMAGES, len(whole))
    rows = np.flatnonzero(whole["split"] != "train")
    table, in_test = whole.iloc[rows], (whole["split"].iloc[rows] == "test").to_numpy()
    members = list_members(params.models, params.seeds)
    check_no_leak(members, set(table["patient"][in_test]))
    loaded = load_members(members, images.shape[1], device)
    by_member = predict_members(loaded, ImageStore(images, rows, device), params.batch_size, tta_views(params.tta))
    probabilities = np.mean(list(by_member.values()), axis=0)
    # What no network has learned is not measured.
    labels = np.where(np.isnan(probabilities), np.uint8(UNKNOWN), label_matrix(table))
    decisions = decide(labels[~in_test], probabilities[~in_test], params.threshold)
    write_predictions(table, probabilities)
    write_decisions(decisions, params)
    write_json({"name": name_of(params.raw_dir), "splits": summary.splits(whole)}, METRICS / "data.json")

    note = "synthetic demo images" if is_synthetic(params.raw_dir) else f"{in_test.sum():,} test images"
    each = {member: values[in_test] for member, values in by_member.items()}
    test = Test(table[in_test], labels[in_test], each, probabilities[in_test], images, rows[in_test], note)
    classes = class_metrics(test.labels, test.probabilities, decisions.thresholds)
    drawn = bootstrap_patients(test.table["patient"], params.bootstrap_samples, BOOTSTRAP_SEED)
    write_metrics(test, classes, decisions, params, drawn)
    classifiers = [one.classifier for one in loaded]
    write_json(localise(test, params, drawn, classifiers, device), METRICS / "localisation.json")
    report_duplicates(images, whole)
    draw_plots(test, classes, params.calibration_bins, describe_run(test, whole, decisions, params, classifiers))


def write_decisions(decisions: Decisions, params: EvaluateParams) -> None:
    """Write what goes with these very networks and views: how to calibrate, and from where on a class is called."""
    content = {
        "members": [str(member) for member in list_members(params.models, params.seeds)],
        "sha256": [sha256(member.file) for member in list_members(params.models, params.seeds)],
        "tta": params.tta.model_dump(),
        "classes": list(CLASSES),
        "calibration": decisions.calibration.to_dict(),
        "rule": params.threshold.rule,
        "thresholds": [summary.nan_to_none(value) for value in decisions.thresholds],
        "calibrated_thresholds": [summary.nan_to_none(value) for value in decisions.calibrated_thresholds],
    }
    write_json(content, DECISIONS)


def write_metrics(
    test: Test, classes: pd.DataFrame, decisions: Decisions, params: EvaluateParams, drawn: BootstrapSamples
) -> None:
    """Write what the probabilities say into `metrics/`, and print the headline."""
    labels, probabilities, synthetic = test.labels, test.probabilities, is_synthetic(params.raw_dir)
    called = probabilities >= decisions.thresholds
    ranks = auroc_and_average_precision(labels, probabilities, drawn)
    compared = ensemble_gain(labels, test.by_member, ranks[0], drawn)
    errors = summary.calibration_errors(labels, probabilities, decisions.calibration, params.calibration_bins)
    points = summary.operating_points(labels, called, decisions.thresholds, params.threshold.rule, drawn)
    for name, content in {
        "test": summary_metrics(classes, errors, len(labels), synthetic),
        "classes": {"synthetic": synthetic, "classes": summary.by_class(classes)},
        "intervals": summary.intervals(*ranks, drawn),
        "operating_points": points,
        "calibration": {"bins": params.calibration_bins, "classes": summary.by_class(errors)},
        "subgroups": summary.subgroups(test.table, labels, probabilities, drawn),
        "members": compared,
    }.items():
        write_json(content, METRICS / f"{name}.json")
    report(classes, compared, len(labels), synthetic)


def localise(
    test: Test, params: EvaluateParams, drawn: BootstrapSamples, classifiers: list[Classifier], device: torch.device
) -> summary.Report:
    """Score the ensemble's class maps on the boxes of test, beside maps that have not seen the image."""
    boxes, side = boxes_of_images(test.table, read_boxes(params.raw_dir)), test.images.shape[1]
    if boxes.empty:
        return localisation.report({}, boxes, drawn)
    pixels = ImageStore(test.images, test.rows[boxes["place"]], device)
    columns = boxes["class"].map(CLASSES.index).to_numpy()
    try:
        maps = {
            name: mean_saliency_maps(method, classifiers, pixels, columns, params.batch_size)
            for name, method in supported_methods(classifiers).items()
        }
        maps["random"] = localisation.random_maps(boxes, side, fine_grid(classifiers[0], side))
        maps["centre"] = localisation.centre_maps(boxes, side)
        scored = {name: localisation.scores(of_boxes, boxes) for name, of_boxes in maps.items()}
    except InputError as error:
        warn(f"no localisation: {error}")
        scored = {}
    return localisation.report(scored, boxes, drawn.of(boxes["place"].to_numpy()))


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


def describe_run(
    test: Test, whole: pd.DataFrame, decisions: Decisions, params: EvaluateParams, classifiers: list[Classifier]
) -> Run:
    """Gather what the report tells: what was measured, and some images with maps."""
    after, thresholds = decisions.calibration.apply(test.probabilities), decisions.calibrated_thresholds
    predicted = Predicted(test.table, test.labels, test.probabilities, after, thresholds)
    return gather_run(predicted, collect_examples(predicted, test.images, test.rows, classifiers), whole, params)


def draw_plots(test: Test, classes: pd.DataFrame, bins: int, run: Run) -> None:
    """Write `plots/`: CSV for `dvc plots`, PNGs, and the report for people."""
    labels, probabilities, note, curves = test.labels, test.probabilities, test.note, run.curves
    roc = plots.roc_curves(labels, probabilities)
    precision_recall = plots.precision_recall_curves(labels, probabilities)
    with atomic_write(PLOTS) as folder:
        folder.mkdir()
        plots.write_curves(roc, folder / "roc")
        plots.write_curves(precision_recall, folder / "precision_recall")
        curves.to_csv(folder / "training.csv", index=False)
        classes[["auroc", "average_precision", "positives"]].to_csv(folder / "classes.csv")
        plots.confusion_table(classes).to_csv(folder / "confusion.csv", index=False)
        drawings: dict[str, Callable[[Path], None]] = {
            "roc.png": partial(plots.draw_curves, roc, f"ROC by class, {note}"),
            "precision_recall.png": partial(
                plots.draw_curves, precision_recall, f"Precision and recall by class, {note}"
            ),
            "classes.png": partial(plots.draw_classes, classes, run.metrics["intervals"]["auroc"], note),
            "subgroups.png": partial(plots.draw_subgroups, run.metrics["subgroups"], note),
            "reliability.png": partial(plots.draw_reliability, labels, probabilities, run.predicted.after, bins, note),
            "confusion.png": partial(plots.draw_confusion, classes, note),
            "training.png": partial(plots.draw_training, curves, note),
            "sample_images.png": partial(
                plots.draw_samples, lambda place: test.images[test.rows[place]], labels, probabilities, note
            ),
            "report.html": partial(write_report, run),
        }
        for name, draw in progress(drawings.items(), "draw", len(drawings), "figures"):
            draw(folder / name)


def report(test: pd.DataFrame, compared: summary.Report, images: int, synthetic: bool) -> None:
    """Print the headline with its interval, above it each of several members, and name every class that is left out."""
    undefined = list(test.index[test["auroc"].isna()])
    if undefined:
        warn(f"no AUROC, for want of positives or negatives in test: {', '.join(undefined)}; left out of the means")
    if len(compared["members"]) > 1:
        for name, member in compared["members"].items():
            print(f"{name}: {in_words(member['auroc']['mean_15'])}")
    kind = "synthetic test images" if synthetic else "test images"
    headline = in_words(compared["ensemble"]["auroc"]["mean_15"])
    print(f"{headline} over {test['auroc'].notna().sum()} classes, {images:,} {kind}")


def in_words(mean: dict[str, float | None]) -> str:
    """A mean AUROC with its interval."""
    interval = "no interval" if mean["low"] is None else f"95 % interval {mean['low']:.4f} to {mean['high']:.4f}"
    value = "undefined" if mean["value"] is None else f"{mean['value']:.4f}"
    return f"mean AUROC {value} ({interval})"


if __name__ == "__main__":
    run_as_script(main)
