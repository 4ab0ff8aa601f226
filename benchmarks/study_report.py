"""Metrics of each change of the study, and the report benchmarks/STUDY.md."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.study_changes import BASELINE, CONTROL, Change, Values, describe_change
from cxr.core.files import atomic_write
from cxr.core.labels import label_matrix
from cxr.evaluation.bootstrap import (
    ALPHA,
    BootstrapDistribution,
    BootstrapSamples,
    bootstrap_patients,
    concatenate,
    difference,
    holm,
)
from cxr.evaluation.class_values import MEANS, with_means
from cxr.evaluation.metrics import Labels
from cxr.evaluation.ranking import auroc_and_average_precision

FOLDS = 3
BOOTSTRAP_SEED = 1


class RunRecord(NamedTuple):
    """The record of a finished run."""

    seconds: float
    best_epoch: int
    device: str
    libraries: dict[str, str]
    code: str  # fingerprint of the training code


class ChangeResult(NamedTuple):
    """The out-of-fold predictions of a change whose runs are all finished."""

    change: Change
    probabilities: NDArray[np.float64]  # [images, 15]
    records: list[RunRecord]  # one for each network and fold


@dataclass(frozen=True)
class StudyResults:
    """The content of STUDY.md.

    Attributes:
        values: parameters of the baseline.
        images: data/sample.csv, one row per image.
        results: results of the finished changes, the baseline first.
        missing: unfinished changes.
        metrics: the table of `change_metrics`.
    """

    values: Values
    images: pd.DataFrame
    results: list[ChangeResult]
    missing: list[Change]
    metrics: pd.DataFrame


def auroc_over_folds(
    labels: Labels, probabilities: NDArray[np.float64], folds: NDArray[np.int64], samples: BootstrapSamples
) -> BootstrapDistribution:
    """Compute the AUROC of each class within each fold, and average it over the folds.

    Probabilities of different folds come from different networks, whose calibration differs. An AUROC of the pooled
    probabilities would also depend on that, so images are ranked within their fold only. The bootstrap samples are of
    the patients of all folds. A class without positives in a fold is averaged over the other folds. Folds have no
    patient in common, so `BootstrapDistribution.mean` gives the degrees of freedom of the mean.

    Args:
        labels: uint8 [images, classes].
        probabilities: out-of-fold probabilities, [images, classes].
        folds: fold of each image, int [images].
        samples: bootstrap samples of the images.
    """
    parts = [folds == fold for fold in np.unique(folds)]
    classes = labels.shape[1]
    by_fold = concatenate(
        *(auroc_and_average_precision(labels[part], probabilities[part], samples.subset(part))[0] for part in parts)
    )
    columns = range(len(by_fold.value))
    return concatenate(*(by_fold.mean(columns[label::classes]) for label in range(classes)))


def change_metrics(
    results: Sequence[ChangeResult], images: pd.DataFrame, folds: NDArray[np.int64], bootstrap_samples: int
) -> pd.DataFrame:
    """Compute the metrics of each change; the first of `results` is the baseline.

    Returns:
        A table with one row per change, sorted by difference, descending. Columns: mean_15 and mean_14 (AUROC), each
        with _low and _high; difference of mean_15 to the baseline, with low, high, p_value and p_holm (corrected for
        all rows), nan for the baseline; networks; minutes (of one network, summed over its folds); best_epoch (median
        over networks and folds).
    """
    labels, samples = label_matrix(images), bootstrap_patients(images["patient"], bootstrap_samples, BOOTSTRAP_SEED)
    aurocs = [with_means(auroc_over_folds(labels, result.probabilities, folds, samples)) for result in results]
    rows = [_metrics_row(result, auroc, aurocs[0]) for result, auroc in zip(results, aurocs, strict=True)]
    table = pd.DataFrame(rows, index=pd.Index([result.change.name for result in results], name="change"))
    table["p_holm"] = holm(table["p_value"].to_numpy())
    return table.sort_values("difference", ascending=False, kind="stable")


def _metrics_row(
    result: ChangeResult, auroc: BootstrapDistribution, baseline: BootstrapDistribution
) -> dict[str, float]:
    row: dict[str, float] = {}
    for name, value, (low, high) in zip(MEANS, auroc.value, auroc.interval(), strict=False):
        row |= {name: value, f"{name}_low": low, f"{name}_high": high}
    if result.change == BASELINE:
        row |= {"difference": 0.0, **dict.fromkeys(("low", "high", "p_value"), math.nan)}
    else:
        compared = difference(baseline, auroc)
        row |= dict(zip(("difference", "low", "high", "p_value"), (values[0] for values in compared), strict=True))
    networks = len(result.records) // FOLDS
    return row | {
        "networks": networks,
        "minutes": sum(record.seconds for record in result.records) / networks / 60,
        "best_epoch": median(record.best_epoch for record in result.records),
    }


def write_report(study: StudyResults, path: Path) -> None:
    """Write the report of `study` to `path`, as Markdown."""
    parts = [
        "# Ablation study: one change at a time",
        setup(study),
        *code_warning(study.results),
        metrics_table(study.metrics),
        HOW_TO_READ,
        seed_variation(study.metrics),
        *conclusions(study.metrics),
        section("Not run", [change.name for change in study.missing]),
        section("The changes", [describe_change(result.change) for result in study.results[1:]]),
    ]
    with atomic_write(path) as temporary:
        temporary.write_text("\n\n".join(filter(None, parts)) + "\n", encoding="utf-8")


HOW_TO_READ = f"""\
The AUROC is the mean over classes, computed within each fold and averaged over folds, with 95 % confidence intervals by
the bootstrap over patients. The difference is that of the mean over 15 classes, paired: both recipes are evaluated on
the same bootstrap samples. p (Holm) is corrected for all rows. Minutes are the training time of one network, summed
over {FOLDS} folds; other programs may have run at the same time. Best epoch is the median over networks and folds. The
intervals describe the sampling of patients for the networks trained here; they do not include the variation between
training seeds, which the next section estimates."""


def setup(study: StudyResults) -> str:
    """Return a paragraph on the images, the baseline, the hardware and the versions of libraries."""
    values, images = study.values, study.images
    devices = sorted({record.device for result in study.results for record in result.records})
    versions = study.results[0].records[0].libraries
    return (
        f"{len(images):,} images of {images['patient'].nunique():,} patients ({Path(values['raw_dir']).name}) in "
        f"{FOLDS} folds by patient. Each image is predicted by networks that were not trained on its patient; the "
        "epoch with the highest mean AUROC on part of the other folds is kept. The baseline is presets/nih-40k.yaml "
        f"(lr {values['lr']}, mixup {values['mixup_alpha']}, warm restarts, strong augmentation) with "
        f"{', '.join(values['models'])} ({values['weights']} weights) at {values['image_size']} px, batches of "
        f"{values['batch_size']}, {values['epochs']} epochs in one cosine cycle, seed "
        f"{', '.join(map(str, values['seeds']))}. Trained on {' and '.join(devices)}, {values['threads']} threads; "
        f"torch {versions['torch']}, timm {versions['timm']}. Written by `python -m benchmarks.study`."
    )


def code_warning(results: Sequence[ChangeResult]) -> list[str]:
    """Return a warning that names the changes trained with other code than the baseline, if there are any."""
    expected = {record.code for record in results[0].records}
    other = [result.change.name for result in results if {record.code for record in result.records} != expected]
    if len(expected) > 1:
        return ["**Warning:** the baseline's folds were trained with different code."]
    return [f"**Warning:** trained with other code than the baseline: {', '.join(other)}."] if other else []


def metrics_table(metrics: pd.DataFrame) -> str:
    """Return a Markdown table with one row per change."""
    heads = (
        "change",
        "mean AUROC, 15 classes",
        "14 findings",
        "difference",
        "p",
        "p (Holm)",
        "networks",
        "minutes",
        "best epoch",
    )
    rows = [_cells(str(name), row) for name, row in metrics.iterrows()]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows))


def _cells(name: str, row: "pd.Series[float]") -> list[str]:
    return [
        name,
        *(f"{row[mean]:.3f}{_interval(row[f'{mean}_low'], row[f'{mean}_high'], '.3f')}" for mean in MEANS),
        "" if name == BASELINE.name else _difference(row),
        *("" if math.isnan(row[key]) else f"{row[key]:.3f}" for key in ("p_value", "p_holm")),
        f"{row['networks']:.0f}",
        f"{row['minutes']:.1f}",
        f"{row['best_epoch']:g}",
    ]


def _interval(low: float, high: float, form: str) -> str:
    return "" if math.isnan(low) else f" [{low:{form}}, {high:{form}}]"


def _difference(row: "pd.Series[float]") -> str:
    return f"{row['difference']:+.4f}{_interval(row['low'], row['high'], '+.4f')}"


def seed_variation(metrics: pd.DataFrame) -> str:
    """Return a section on the difference between two seeds of the baseline."""
    if CONTROL.name not in metrics.index:
        return f"## Variation between seeds\n\nUnknown: {CONTROL.name} has not been run."
    row = metrics.T[CONTROL.name]
    return (
        "## Variation between seeds\n\nThe baseline with another seed differs from the baseline by "
        f"{_difference(row)}, p (Holm) {row['p_holm']:.3f}. Significant changes that are not larger than this are "
        "marked below: they may be due to the seed. Two seeds give a rough estimate only."
    )


def conclusions(metrics: pd.DataFrame) -> list[str]:
    """Return sections that list the changes by significance and sign of the difference."""
    changes = metrics.drop([name for name in (BASELINE.name, CONTROL.name) if name in metrics.index])
    significant = changes["p_holm"] <= ALPHA
    sections = {
        f"Improvements (p (Holm) at most {ALPHA})": changes[significant & (changes["difference"] > 0)],
        f"Deteriorations (p (Holm) at most {ALPHA})": changes[significant & (changes["difference"] < 0)][::-1],
        "No significant difference": changes[~significant],
    }
    of_seeds = abs(metrics["difference"].get(CONTROL.name, 0.0))
    return [
        section(head, [_conclusion(str(name), row, of_seeds) for name, row in rows.iterrows()] or ["None."])
        for head, rows in sections.items()
    ]


def _conclusion(name: str, row: "pd.Series[float]", of_seeds: float) -> str:
    mark = "; not larger than between seeds" if row["p_holm"] <= ALPHA and abs(row["difference"]) <= of_seeds else ""
    return f"{name}: {_difference(row)}{mark}"


def section(head: str, lines: Sequence[str]) -> str:
    """Return a section with a list of `lines`; an empty string if there are none."""
    return f"## {head}\n\n" + "\n".join(f"- {line}" for line in lines) if lines else ""
