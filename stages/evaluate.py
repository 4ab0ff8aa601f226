"""Measure the ensemble on test, with the thresholds that validation chose.

Reads: `data/sample.csv`, `data/split.csv`, `data/images.npy`, `data/models/`, `data/curves.csv`, and in `raw_dir`
    whether the images are synthetic.
Writes: `metrics/test.json` (the headlines), `metrics/classes.json` (every class), `data/predictions.csv` (image,
    patient, split, 15 probabilities, for val and test) and `plots/`.
Alone: `python -m stages.evaluate`
"""

import os

# Before PyTorch loads: threads that wait must sleep. On a busy CPU, spinning makes a step up to 75 times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cxr import networks, plots
from cxr.batches import Pixels, open_images
from cxr.errors import InputError, run_as_script, warn
from cxr.files import replacing, write_csv, write_json
from cxr.findings import CLASSES, NO_FINDING
from cxr.measures import (
    accuracy,
    auroc,
    average_precision,
    best_f1_thresholds,
    confusion,
    defined_mean,
    precision_recall_f1,
)
from cxr.params import EvaluateParams, read_params
from cxr.paths import CURVES, IMAGES, METRICS, PLOTS, PREDICTIONS, SAMPLE, SPLIT, model_file
from cxr.prediction import predict_logits
from cxr.runtime import explaining_limits, prepare
from cxr.tables import is_synthetic, label_matrix, read_sample_with_split

FINDING_COLUMNS = [column for column, name in enumerate(CLASSES) if name != NO_FINDING]


def main() -> None:
    """Predict val and test, measure test, write everything."""
    params = read_params(EvaluateParams)
    device = prepare(params.threads, params.deterministic)
    table = read_sample_with_split(SAMPLE, SPLIT)
    images = open_images(IMAGES, len(table))
    rows = np.flatnonzero(table["split"] != "train")
    table, probabilities = table.iloc[rows], ensemble(params, Pixels(images, rows, device), images.shape[1], device)
    in_test = (table["split"] == "test").to_numpy()
    labels = label_matrix(table)
    thresholds = best_f1_thresholds(labels[~in_test], probabilities[~in_test])
    synthetic = is_synthetic(params.raw_dir)

    write_predictions(table, probabilities)
    test = measure(labels[in_test], probabilities[in_test], thresholds)
    write_json(headlines(test, int(in_test.sum()), synthetic), METRICS / "test.json")
    write_json({"synthetic": synthetic, "classes": by_class(test)}, METRICS / "classes.json")
    draw_plots(table[in_test], probabilities[in_test], test, lambda place: images[rows[in_test][place]], synthetic)
    report(test, int(in_test.sum()), synthetic)


def ensemble(params: EvaluateParams, pixels: Pixels, image_size: int, device: torch.device) -> NDArray[np.float64]:
    """The mean probability of `models` x `seeds`, float64 [images, 15].

    Raises:
        InputError: where a member is missing, broken, or was trained on images of another size.
    """
    members = [model_file(model, seed) for model in params.models for seed in params.seeds]
    total = np.zeros((len(pixels), len(CLASSES)))
    for path in members:
        classifier, about = networks.load(path)
        if about["image_size"] != image_size:
            raise InputError(f"{path} was trained at {about['image_size']} px, {IMAGES} has {image_size}; train again")
        with explaining_limits():
            logits = predict_logits(classifier.to(device), pixels, params.batch_size)
        total += torch.sigmoid(logits.double()).cpu().numpy()
    return total / len(members)


def measure(
    labels: NDArray[np.uint8], probabilities: NDArray[np.float64], thresholds: NDArray[np.float64]
) -> pd.DataFrame:
    """All measures, a row a class; nan where a class has no positives or no negatives to measure them on."""
    decisions = probabilities >= thresholds
    counts = confusion(labels, decisions)
    table = pd.DataFrame(
        {
            "images": len(labels),
            "positives": labels.sum(axis=0, dtype=np.int64),
            "auroc": auroc(labels, probabilities),
            "average_precision": average_precision(labels, probabilities),
            "threshold": thresholds,
            "accuracy": accuracy(labels, decisions),
        },
        index=pd.Index(CLASSES, name="class"),
    )
    table[["precision", "recall", "f1"]] = precision_recall_f1(counts)
    table[["true_negatives", "false_positives", "false_negatives", "true_positives"]] = counts
    table.attrs["exact_match"] = float((labels.astype(bool) == decisions).all(axis=1).mean())
    return table


def headlines(test: pd.DataFrame, images: int, synthetic: bool) -> dict[str, Any]:
    """What `dvc metrics diff` compares: plain numbers, null where there is none."""
    findings = test.iloc[FINDING_COLUMNS]
    return {
        "auroc": {
            "mean_15": _number(defined_mean(test["auroc"].to_numpy())),
            "mean_14": _number(defined_mean(findings["auroc"].to_numpy())),
            "classes_in_mean_15": int(test["auroc"].notna().sum()),
            "classes_in_mean_14": int(findings["auroc"].notna().sum()),
            **{name: _number(value) for name, value in test["auroc"].items()},
        },
        "average_precision": {
            "mean_15": _number(defined_mean(test["average_precision"].to_numpy())),
            "mean_14": _number(defined_mean(findings["average_precision"].to_numpy())),
        },
        "f1": {"mean_15": _number(defined_mean(test["f1"].to_numpy()))},
        "hamming_accuracy": float(test["accuracy"].mean()),
        "exact_match": test.attrs["exact_match"],
        "test_images": images,
        "synthetic_test_images": images if synthetic else 0,
    }


def by_class(test: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    """Every measure of every class."""
    rows = test.to_dict("index")
    return {str(name): {str(key): _number(value) for key, value in row.items()} for name, row in rows.items()}


def write_predictions(table: pd.DataFrame, probabilities: NDArray[np.float64]) -> None:
    """Write the probabilities of val and test images, to the last digit: the metrics follow from them."""
    columns = pd.DataFrame(probabilities, columns=list(CLASSES), index=table.index)
    write_csv(pd.concat([table[["image", "patient", "split"]], columns], axis=1), PREDICTIONS)


def draw_plots(
    table: pd.DataFrame,
    probabilities: NDArray[np.float64],
    test: pd.DataFrame,
    image: Callable[[int], NDArray[np.uint8]],
    synthetic: bool,
) -> None:
    """Write `plots/`: CSV for `dvc plots`, and PNGs for people."""
    labels, curves = label_matrix(table), pd.read_csv(CURVES)
    note = "synthetic demo images" if synthetic else f"{len(table):,} test images"
    with replacing(PLOTS) as folder:
        folder.mkdir()
        roc, precision_recall = (
            plots.roc_curves(labels, probabilities),
            plots.precision_recall_curves(labels, probabilities),
        )
        plots.write_curves(roc, folder / "roc")
        plots.write_curves(precision_recall, folder / "precision_recall")
        curves.to_csv(folder / "training.csv", index=False)
        test[["auroc", "average_precision", "positives"]].to_csv(folder / "classes.csv")
        plots.confusion_table(test).to_csv(folder / "confusion.csv", index=False)
        plots.draw_curves(roc, f"ROC by class, {note}", folder / "roc.png")
        plots.draw_curves(precision_recall, f"Precision and recall by class, {note}", folder / "precision_recall.png")
        plots.draw_classes(test, note, folder / "classes.png")
        plots.draw_confusion(test, note, folder / "confusion.png")
        plots.draw_training(curves, note, folder / "training.png")
        plots.draw_samples(image, labels, probabilities, note, folder / "sample_images.png")


def report(test: pd.DataFrame, images: int, synthetic: bool) -> None:
    """Print the headlines, and name every class that they leave out."""
    undefined = list(test.index[test["auroc"].isna()])
    if undefined:
        warn(f"no AUROC, for want of positives or negatives in test: {', '.join(undefined)}; left out of the means")
    defined = defined_mean(test["auroc"].to_numpy())
    kind = "synthetic test images" if synthetic else "test images"
    print(f"mean AUROC {defined:.4f} over {test['auroc'].notna().sum()} classes, {images:,} {kind}")


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value


if __name__ == "__main__":
    run_as_script(main)
