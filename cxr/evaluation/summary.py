"""What evaluate reports of test: headlines, and what stands behind them, as JSON has it.

All 95 % intervals use the same bootstrap samples (`cxr.evaluation.bootstrap`). An undefined number is null.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.core.labels import CLASSES, FINDINGS
from cxr.core.tables import SPLITS
from cxr.evaluation.bootstrap import (
    BootstrapDistribution,
    BootstrapSamples,
    auroc_and_average_precision,
    concatenate,
    difference,
    proportion,
)
from cxr.evaluation.calibration import Calibration, brier_score, expected_calibration_error
from cxr.evaluation.metrics import (
    Labels,
    PerClass,
    Scores,
    accuracy,
    auroc,
    average_precision,
    confusion,
    label_mask,
    nanmean,
    positives,
    precision_recall_f1,
)
from cxr.evaluation.subgroups import Group, counts, enough, groups, largest_gaps, shared_classes
from cxr.evaluation.thresholds import Rule

# Which classes each mean is over.
MEANS = {
    "mean_15": list(range(len(CLASSES))),
    "mean_14": [column for column, name in enumerate(CLASSES) if name in FINDINGS],
}
Report = dict[str, Any]


def means(class_metrics: BootstrapDistribution) -> BootstrapDistribution:
    """The means of a measure of the 15 classes, in the order of `MEANS`."""
    return concatenate(*(class_metrics.mean(columns) for columns in MEANS.values()))


def with_means(class_metrics: BootstrapDistribution) -> BootstrapDistribution:
    """The means over 15 and 14 classes, then the classes."""
    return concatenate(means(class_metrics), class_metrics)


def class_metrics(
    labels: NDArray[np.uint8], probabilities: NDArray[np.float64], thresholds: NDArray[np.float64]
) -> pd.DataFrame:
    """All measures, a row a class; nan where a class has no positives or no negatives to measure them on."""
    decisions = probabilities >= thresholds
    counts = confusion(labels, decisions)
    table = pd.DataFrame(
        {
            "images": label_mask(labels).sum(axis=0),
            "positives": positives(labels),
            "auroc": auroc(labels, probabilities),
            "average_precision": average_precision(labels, probabilities),
            "threshold": thresholds,
            "accuracy": accuracy(labels, decisions),
        },
        index=pd.Index(CLASSES, name="class"),
    )
    table[["precision", "recall", "f1"]] = precision_recall_f1(counts)
    table[["true_negatives", "false_positives", "false_negatives", "true_positives"]] = counts
    table.attrs["exact_match"] = float(((labels == decisions) | ~label_mask(labels)).all(axis=1).mean())
    return table


def summary_metrics(test: pd.DataFrame, errors: pd.DataFrame, images: int, synthetic: bool) -> dict[str, Any]:
    """What `dvc metrics diff` compares: plain numbers, null where there is none."""
    areas, precisions = test["auroc"].to_numpy(), test["average_precision"].to_numpy()
    return {
        "auroc": {
            **{name: nan_to_none(nanmean(areas[columns])) for name, columns in MEANS.items()},
            **{f"classes_in_{name}": int(np.isfinite(areas[columns]).sum()) for name, columns in MEANS.items()},
            **{name: nan_to_none(value) for name, value in test["auroc"].items()},
        },
        "average_precision": {name: nan_to_none(nanmean(precisions[columns])) for name, columns in MEANS.items()},
        "brier": {when: float(errors[f"brier_{when}"].mean()) for when in ("before", "after")},
        "calibration_error": {when: float(errors[f"calibration_error_{when}"].mean()) for when in ("before", "after")},
        "f1": {"mean_15": nan_to_none(nanmean(test["f1"].to_numpy()))},
        "hamming_accuracy": float(test["accuracy"].mean()),
        "exact_match": test.attrs["exact_match"],
        "test_images": images,
        "synthetic_test_images": images if synthetic else 0,
    }


def splits(sample: pd.DataFrame) -> Report:
    """Images, patients, and images with each class, of each split."""
    parts = {name: sample[sample["split"] == name] for name in SPLITS}
    return {
        name: {
            "images": len(part),
            "patients": part["patient"].nunique(),
            "positives": {label: int((part[label] == 1).sum()) for label in CLASSES},
        }
        for name, part in parts.items()
    }


def by_class(table: pd.DataFrame) -> dict[str, dict[str, float | str | None]]:
    """A table with a row a class, as JSON has it."""
    return {
        str(name): {str(key): value if isinstance(value, str) else nan_to_none(value) for key, value in row.items()}
        for name, row in table.to_dict("index").items()
    }


def intervals(areas: BootstrapDistribution, precisions: BootstrapDistribution, resamples: BootstrapSamples) -> Report:
    """Value, low and high of both measures, for the means and each class."""
    draws, patients = resamples.counts.shape
    measures = {"auroc": areas, "average_precision": precisions}
    return {
        "resamples": draws - 1,
        "patients": patients,
        **{name: with_ci((*MEANS, *CLASSES), with_means(class_metrics)) for name, class_metrics in measures.items()},
    }


def operating_points(
    labels: Labels, decisions: NDArray[np.bool_], thresholds: PerClass, rule: Rule, resamples: BootstrapSamples
) -> Report:
    """Threshold, sensitivity, specificity, PPV and NPV of each class; `decisions` are bool [images, 15]."""
    positive, negative, called = labels == 1, labels == 0, decisions
    rates = {
        "sensitivity": proportion(called, positive, resamples),
        "specificity": proportion(~called, negative, resamples),
        "ppv": proportion(positive, called & label_mask(labels), resamples),
        "npv": proportion(negative, ~called & label_mask(labels), resamples),
    }
    measured = {name: with_ci(CLASSES, class_metrics) for name, class_metrics in rates.items()}
    points = {
        name: {"threshold": nan_to_none(threshold), **{rate: entry[name] for rate, entry in measured.items()}}
        for name, threshold in zip(CLASSES, thresholds, strict=True)
    }
    return {"rule": rule, "classes": points}


def calibration_errors(labels: Labels, probabilities: Scores, calibration: Calibration, bins: int) -> pd.DataFrame:
    """Brier score and expected calibration error before and after, a row a class."""
    after = calibration.apply(probabilities)
    return pd.DataFrame(
        {
            "slope": calibration.slope,
            "intercept": calibration.intercept,
            "kept_because": calibration.kept_because,
            "brier_before": brier_score(labels, probabilities),
            "brier_after": brier_score(labels, after),
            "calibration_error_before": expected_calibration_error(labels, probabilities, bins),
            "calibration_error_after": expected_calibration_error(labels, after, bins),
        },
        index=pd.Index(CLASSES, name="class"),
    )


def subgroups(table: pd.DataFrame, labels: Labels, probabilities: Scores, resamples: BootstrapSamples) -> Report:
    """AUROC of each class in each group of patients, and between which groups it differs most.

    A class is shown in a group that has enough of it to say anything. The mean of a group is over the classes that all
    groups of its attribute have, so that means can be compared; a group without any class has none. The largest of
    several gaps is above 0 by chance alone: its interval is that of the difference of the two groups that it names, and
    knows nothing of the choice.
    """
    masks = groups(table)
    aurocs = {group: _auroc_of(mask, labels, probabilities, resamples) for group, mask in masks.items()}
    values = {group: found.value for group, found in aurocs.items()}
    sizes = counts(masks, labels)
    report: Report = {}
    for (attribute, name), found in aurocs.items():
        in_mean = np.flatnonzero(shared_classes(values, attribute) & ~np.isnan(found.value))
        rows = sizes[(sizes["attribute"] == attribute) & (sizes["group"] == name)]
        report.setdefault(attribute, {"groups": {}})["groups"][name] = {
            "images": int(masks[attribute, name].sum()),
            "classes_in_mean": len(in_mean),
            "positives": dict(zip(rows["class"], rows["positives"].tolist(), strict=True)),
            "auroc": {**_mean_entry(found, in_mean), **with_ci(CLASSES, found)},
        }
    for row in largest_gaps(values).to_dict("records"):
        shared = np.flatnonzero(shared_classes(values, row["attribute"]))
        report[row["attribute"]].setdefault("largest_gap", {})[row["class"]] = _gap(row, aurocs, shared)
    return report


def _auroc_of(
    mask: NDArray[np.bool_], labels: Labels, probabilities: Scores, resamples: BootstrapSamples
) -> BootstrapDistribution:
    """AUROC within a group; nan for the classes of which it has not enough."""
    found, _ = auroc_and_average_precision(labels[mask], probabilities[mask], resamples.of(mask))
    return replace(found, value=np.where(enough(labels[mask]), found.value, np.nan))


def _gap(row: dict[Any, Any], aurocs: dict[Group, BootstrapDistribution], shared: NDArray[np.intp]) -> Report:
    """The difference of the two groups of a row of `largest_gaps`, with its interval."""
    if not row["highest"]:
        return {"highest": None, "lowest": None, "value": None, "low": None, "high": None}
    lowest, highest = (aurocs[row["attribute"], row[end]] for end in ("lowest", "highest"))
    if row["class"] == "mean":
        found, column = difference(lowest.mean(list(shared)), highest.mean(list(shared))), 0
    else:
        found, column = difference(lowest, highest), CLASSES.index(row["class"])
    entry = {name: nan_to_none(getattr(found, name)[column]) for name in ("value", "low", "high")}
    return {"highest": row["highest"], "lowest": row["lowest"], **entry}


def _mean_entry(found: BootstrapDistribution, columns: NDArray[np.intp]) -> Report:
    return with_ci(("mean",), found.mean(list(columns))) if len(columns) else {}


def with_ci(names: tuple[str, ...], class_metrics: BootstrapDistribution) -> Report:
    """Value, low and high of each class of a measure, whose names are `names`."""
    bounds = class_metrics.interval()
    return {
        name: {"value": nan_to_none(value), "low": nan_to_none(low), "high": nan_to_none(high)}
        for name, value, (low, high) in zip(names, class_metrics.value, bounds, strict=True)
    }


def nan_to_none(value: float) -> float | None:
    """As JSON has it: null for nan."""
    return None if np.isnan(value) else float(value)
