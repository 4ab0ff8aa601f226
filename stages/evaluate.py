"""Evaluate the ensemble on the test images, with thresholds and calibration fitted on validation.

Reads: `data/sample.csv`, `data/official.csv`, `data/split.csv`, `data/images.npy`, `data/images.json`, `data/models/`,
    `data/curves.csv`, and from `raw_dir` the table, the bounding boxes and radiologists' labels if there are any, and
    `SYNTHETIC.txt` if the images are synthetic.
Writes: `metrics/*.json` (`cxr.evaluation.schema` describes each file), `plots/` with `report.html`,
    `data/predictions.csv` (image, patient, split, 15 probabilities, for val and test) and `data/decisions.json`
    (thresholds and calibration for these probabilities).
Run: `python -m stages.evaluate`
"""

import cxr.core.cpu  # noqa: F401 (must precede the import of numerical libraries)

# isort: split
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cxr.core.errors import run_stage, warn
from cxr.core.files import sha256, write_csv
from cxr.core.image_array import open_images
from cxr.core.labels import CLASSES
from cxr.core.params import read_params
from cxr.core.paths import CURVES, DECISIONS, IMAGES, METRICS, OFFICIAL, PLOTS, PREDICTIONS, SAMPLE, SPLIT
from cxr.core.tables import is_synthetic, read_curves, read_official, read_sample_with_split
from cxr.datasets.boxes import boxes_of_images, read_boxes
from cxr.datasets.expert_labels import read_expert_labels
from cxr.datasets.registry import NIH, dataset_name, read_patients
from cxr.evaluation.bootstrap import BootstrapSamples, bootstrap_patients
from cxr.evaluation.decisions import Decisions, fit_decisions
from cxr.evaluation.experts import evaluate_experts
from cxr.evaluation.localisation import evaluate_localisation
from cxr.evaluation.near_duplicates import find_duplicates
from cxr.evaluation.params import EvaluateParams
from cxr.evaluation.schema import Counts, DataSummary, Experts, Interval, Metrics, PredictionMetrics
from cxr.evaluation.summary import Predictions, average_members, evaluate_test_images, optimism, split_summaries
from cxr.inference.ensemble import LoadedMember, check_no_leak, load_members, predict_members
from cxr.inference.tta import tta_views
from cxr.models.device import init_device
from cxr.models.image_store import ImageStore
from cxr.models.members import list_members
from cxr.reporting.examples import collect_examples
from cxr.reporting.output import write_plots
from cxr.reporting.run import Run

BOOTSTRAP_SEED = 1


def main() -> None:
    """Predict val and test, fit thresholds and calibration on val, evaluate test, and write the results."""
    params = read_params(EvaluateParams)
    device = init_device(params.threads, params.deterministic)
    sample = read_sample_with_split(SAMPLE, SPLIT)
    images = open_images(IMAGES, list(sample["image"]))
    members = load_networks(params, sample, images.shape[1], device)
    classifiers = [one.classifier for one in members]
    rows = np.flatnonzero(sample["split"] != "train")
    predictions = predict_ensemble(members, ImageStore(images, rows, device), sample.iloc[rows], params)
    write_predictions(predictions)
    val, test = (predictions.subset((predictions.table["split"] == name).to_numpy()) for name in ("val", "test"))
    test_rows = np.flatnonzero(sample["split"] == "test")
    decisions = fit_on_val(val, members, params)
    decisions.write(DECISIONS)

    samples = bootstrap_patients(test.table["patient"], params.bootstrap_samples, BOOTSTRAP_SEED)
    boxes = boxes_of_images(test.table, read_boxes(params.raw_dir))
    measured = evaluate_test_images(test, decisions, samples, params.calibration_bins)
    metrics = Metrics(
        **dict(measured),
        localisation=evaluate_localisation(classifiers, images, test_rows, boxes, params.batch_size, samples),
        data=summarize_data(params.raw_dir, sample),
        duplicates=find_duplicates(images, sample),
        experts=compare_with_experts(params.raw_dir, test, decisions, samples),
        optimism=optimism(val, measured.test, decisions, params.calibration_bins),
    )
    metrics.write(METRICS)
    print_summary(metrics)
    run = Run(
        test=test,
        decisions=decisions,
        metrics=metrics,
        examples=collect_examples(test, decisions, images, test_rows, classifiers),
        sample=sample,
        official=official_lists(params.raw_dir),
        members={str(one.member): one.description for one in members},
        params=params.model_dump(mode="json", exclude={"raw_dir"}),
        training=read_curves(CURVES),
        boxes=boxes,
    )
    write_plots(run, lambda index: images[test_rows[index]], PLOTS)


def load_networks(
    params: EvaluateParams, sample: pd.DataFrame, image_size: int, device: torch.device
) -> list[LoadedMember]:
    """Load the networks, and refuse those that were trained on patients of val or test."""
    members = load_members(list_members(params.models, params.seeds), image_size, device)
    check_no_leak(members, *(set(sample["patient"][sample["split"] == name]) for name in ("test", "val")))
    return members


def official_lists(raw_dir: Path) -> pd.DataFrame:
    """Return NIH's official split of the sample; no rows for another data set."""
    official = read_official(OFFICIAL)
    return official if dataset_name(raw_dir) == NIH else official[:0]


def summarize_data(raw_dir: Path, sample: pd.DataFrame) -> DataSummary:
    """Return name and counts of the data set: of its table, if there is one, and of the splits."""
    table = read_patients(raw_dir)
    counts = Counts(images=len(table), patients=table["patient"].nunique()) if len(table) else None
    return DataSummary(name=dataset_name(raw_dir), table=counts, splits=split_summaries(sample))


def compare_with_experts(raw_dir: Path, test: Predictions, decisions: Decisions, samples: BootstrapSamples) -> Experts:
    """Compare with the radiologists' labels in `raw_dir`, if there are any."""
    return evaluate_experts(
        read_expert_labels(raw_dir),
        list(test.table["image"]),
        test.labels,
        decisions.calibration.apply(test.probabilities),
        test.probabilities >= decisions.thresholds,
        samples,
    )


def predict_ensemble(
    members: Sequence[LoadedMember], images: ImageStore, table: pd.DataFrame, params: EvaluateParams
) -> Predictions:
    """Return the predictions of the members and their mean for `images`, whose rows in the sample are `table`."""
    by_member = predict_members(members, images, params.batch_size, tta_views(params.tta))
    return average_members(table, by_member)


def write_predictions(predictions: Predictions) -> None:
    """Write the probabilities with all digits, so that the metrics can be recomputed."""
    table = predictions.table[["image", "patient", "split"]]
    columns = pd.DataFrame(predictions.probabilities, columns=list(CLASSES), index=table.index)
    write_csv(pd.concat([table, columns], axis=1), PREDICTIONS)


def fit_on_val(val: Predictions, members: Sequence[LoadedMember], params: EvaluateParams) -> Decisions:
    """Fit the calibration and choose the thresholds of the ensemble on the validation images."""
    return fit_decisions(
        val.labels,
        val.probabilities,
        params.threshold,
        sha256={str(one.member): sha256(one.member.file) for one in members},
        tta=params.tta,
        synthetic=is_synthetic(params.raw_dir),
    )


def print_summary(metrics: PredictionMetrics) -> None:
    """Print the mean AUROC of the ensemble and of each of several members; warn of undefined classes."""
    test, members = metrics.test, metrics.members
    undefined = [name for name in CLASSES if test.auroc[name] is None]
    if undefined:
        warn(
            f"the AUROC of {', '.join(undefined)} is undefined, since test has no positives or no negatives; the means "
            "leave out these classes"
        )
    if shifted := metrics.prevalence.shifted:
        warn(
            f"the prevalence of {', '.join(shifted)} in test differs from that in validation by more than a factor of "
            f"{metrics.prevalence.max_ratio}, so probabilities, PPV and NPV do not hold there: see "
            "metrics/prevalence.json"
        )
    if len(members.members) > 1:
        for name, member in members.members.items():
            print(f"{name}: {describe_mean(member.auroc['mean_15'])}")
    kind = "synthetic test images" if metrics.classes.synthetic else "test images"
    mean = describe_mean(members.ensemble.auroc["mean_15"])
    print(f"{mean} over {test.auroc['classes_in_mean_15']} classes, {test.test_images:,} {kind}")


def describe_mean(auroc: Interval) -> str:
    """Return a mean AUROC with its interval as text."""
    value = "undefined" if auroc.value is None else f"{auroc.value:.4f}"
    interval = "no interval" if auroc.low is None else f"95 % CI {auroc.low:.4f} to {auroc.high:.4f}"
    return f"mean AUROC {value} ({interval})"


if __name__ == "__main__":
    run_stage(main, __doc__)
