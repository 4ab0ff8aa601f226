"""Texts of the page about thresholds, networks and their evaluation."""

from collections.abc import Mapping

from cxr.evaluation.schema import Interval, Metrics
from cxr.evaluation.thresholds import DEFAULT_THRESHOLD
from cxr.reporting.text import format_ci
from tools.predict.ensemble import Ensemble

RULES: Mapping[str, str] = {
    "f1": "the threshold with the highest F1",
    "youden": "the threshold with the highest sum of sensitivity and specificity",
    "sensitivity": "the highest threshold with the required sensitivity",
}


def percent_ci(interval: Interval) -> str:
    """Return a proportion with its 95 % confidence interval in whole percent."""
    if interval.value is None:
        return "undefined"
    if interval.low is None or interval.high is None:
        return f"{interval.value * 100:.0f} % (no interval)"
    return f"{interval.value * 100:.0f} % ({interval.low * 100:.0f} to {interval.high * 100:.0f} %)"


def explain_threshold(name: str, value: float, metrics: Metrics) -> list[str]:
    """Return sentences on the choice of the threshold `value` of the class `name`, and on its rates on test."""
    point, counts = metrics.operating_points.classes[name], metrics.classes.classes[name]
    chosen = f"{RULES[metrics.operating_points.rule]} on validation"
    if point.threshold == DEFAULT_THRESHOLD:
        chosen = "the default, because validation has no positives or no negatives of this class"
    return [
        f"{name} is predicted positive at a probability of {value:.3f} or higher: {chosen}.",
        f"On test, sensitivity: {percent_ci(point.sensitivity)} of {counts.positives:,} images labelled {name}; "
        f"specificity: {percent_ci(point.specificity)} of {counts.images - counts.positives:,} others; "
        f"positive predictive value: {percent_ci(point.ppv)}.",
        f"AUROC {format_ci(metrics.intervals.auroc[name])}. Values in parentheses are 95 % confidence intervals.",
    ]


def describe_ensemble(ensemble: Ensemble, metrics: Metrics) -> dict[str, str]:
    """Return facts about the networks and their evaluation, by title."""
    names, views = [file.stem for file in ensemble.files], len(ensemble.views)
    title, mean = ("Networks", " (mean of their probabilities)") if len(names) > 1 else ("Network", "")
    size = f"{ensemble.image_size} × {ensemble.image_size} pixels"
    kind, patients = ("synthetic", "simulated patients") if metrics.classes.synthetic else ("test", "patients")
    facts = {
        title: ", ".join(names) + mean,
        "Input": f"{size}, {views} TTA views" if views > 1 else size,
        "Mean AUROC": f"{format_ci(metrics.intervals.auroc['mean_15'])} over "
        f"{metrics.test.auroc['classes_in_mean_15']} classes, with 95 % confidence interval",
        "Evaluated on": f"{metrics.test.test_images:,} {kind} images of {metrics.intervals.patients:,} {patients}, "
        "none of them in training",
        "Probabilities": "calibrated on validation",
        "Thresholds": f"for each class, {RULES[metrics.operating_points.rule]} on validation",
    }
    if ensemble.untrained:
        facts["Not trained, for lack of labels"] = ", ".join(ensemble.untrained)
    return facts
