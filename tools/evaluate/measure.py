"""The metrics, the report and the tables of an external evaluation."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from cxr.core.files import write_csv
from cxr.core.labels import CLASSES
from cxr.core.tables import write_sample
from cxr.datasets.boxes import boxes_of_images, read_boxes
from cxr.datasets.expert_labels import read_expert_labels
from cxr.datasets.registry import NIH
from cxr.evaluation.bootstrap import BootstrapSamples, bootstrap_patients
from cxr.evaluation.decisions import Decisions
from cxr.evaluation.experts import evaluate_experts
from cxr.evaluation.external import External, ExternalMetrics, count_images, evaluate_external
from cxr.evaluation.localisation import evaluate_localisation
from cxr.evaluation.params import Threshold
from cxr.evaluation.schema import Experts, Localisation
from cxr.evaluation.summary import Predictions
from cxr.reporting.examples import Examples, collect_examples
from cxr.reporting.report import RULES, write_report
from cxr.reporting.run import Run
from tools.evaluate.labels import LabelSet
from tools.evaluate.sources import PredictionSource

BOOTSTRAP_SEED = 1  # as in the stage evaluate
CALIBRATION_BINS = 10  # as in params.yaml
REQUIRED_SENSITIVITY = 0.9  # as in params.yaml, for the rule sensitivity
EXTERNAL = Path("metrics/external.json")
PREDICTIONS, SAMPLE = "predictions.csv", "sample.csv"


class Settings(NamedTuple):
    """Options of the evaluation."""

    bootstrap_samples: int
    batch_size: int
    experts: Path | None = None  # folder of radiologists' labels; None for that of the labels


def measure(source: PredictionSource, labels: LabelSet, settings: Settings) -> ExternalMetrics:
    """Compute the metrics of `source`, whose images are among those of `labels`."""
    test, decisions = source.test, source.decisions
    samples = bootstrap_patients(test.table["patient"], settings.bootstrap_samples, BOOTSTRAP_SEED)
    rule = decisions.rule if decisions.rule != "fixed" else "f1"
    choice = Threshold(rule=rule, sensitivity=REQUIRED_SENSITIVITY)
    metrics, classes = evaluate_external(test, decisions, choice, samples, CALIBRATION_BINS)
    external = External(
        predictions=source.names,
        labels=labels.source,
        decisions="carried over" if source.is_carried_over else "fixed",
        rule_here=RULES[rule],
        leak=source.leak,
        notes=[*labels.notes, *source.notes],
        classes=classes,
    )
    return ExternalMetrics(
        **dict(metrics),
        data=count_images(labels.name, test.table),
        external=external,
        experts=compare_with_radiologists(test, decisions, settings.experts or labels.folder, samples),
        localisation=localise(source, labels, samples, settings.batch_size),
    )


def compare_with_radiologists(
    test: Predictions, decisions: Decisions, folder: Path, samples: BootstrapSamples
) -> Experts:
    """Compare with the radiologists' labels in `folder`, if there are any."""
    return evaluate_experts(
        read_expert_labels(folder),
        list(test.table["image"]),
        test.labels,
        decisions.calibration.apply(test.probabilities),
        test.probabilities >= decisions.thresholds,
        samples,
    )


def localise(
    source: PredictionSource, labels: LabelSet, samples: BootstrapSamples, batch_size: int
) -> Localisation | None:
    """Score the saliency maps on the bounding boxes of the data set; None for predictions without networks."""
    if source.images is None:
        return None
    rows = np.arange(len(source.images))
    return evaluate_localisation(
        source.classifiers, source.images, rows, image_boxes(source, labels), batch_size, samples
    )


def image_boxes(source: PredictionSource, labels: LabelSet) -> pd.DataFrame:
    """Return the bounding boxes on the images; none without such a list in the folder of the labels."""
    return boxes_of_images(source.test.table, read_boxes(labels.folder))


def make_run(source: PredictionSource, labels: LabelSet, metrics: ExternalMetrics, settings: Settings) -> Run:
    """Return the input of the report."""
    return Run(
        test=source.test,
        decisions=source.decisions,
        metrics=metrics,
        examples=choose(source),
        sample=source.test.table.assign(split="test"),
        official=labels.official if labels.name == NIH else labels.official[:0],
        members=source.descriptions,
        params={
            "bootstrap_samples": settings.bootstrap_samples,
            "batch_size": settings.batch_size,
            "calibration_bins": CALIBRATION_BINS,
            "tta": source.decisions.tta.model_dump(mode="json"),
        },
        training=pd.DataFrame({"member": []}),
        boxes=image_boxes(source, labels),
    )


def choose(source: PredictionSource) -> Examples | None:
    """Return example images with saliency maps; None without images."""
    if source.images is None:
        return None
    rows = np.arange(len(source.images))
    return collect_examples(source.test, source.decisions, source.images, rows, source.classifiers)


def write_results(run: Run, metrics: ExternalMetrics, folder: Path) -> None:
    """Write metrics/*.json, report.html, and the predictions and labels that `tools.compare` reads."""
    metrics.write(folder / "metrics")
    write_report(run, folder / "report.html")
    table = run.test.table[["image", "patient"]].assign(split="test").reset_index(drop=True)
    columns = pd.DataFrame(run.test.probabilities, columns=list(CLASSES))
    write_csv(pd.concat([table, columns], axis=1), folder / PREDICTIONS)
    write_sample(run.test.table, folder / SAMPLE)
