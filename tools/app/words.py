"""What the page says in words: what a threshold means, and for which networks and images the numbers speak."""

from collections.abc import Mapping

from cxr.evaluation.summary import Report
from cxr.evaluation.thresholds import DEFAULT_THRESHOLD, Rule
from cxr.reporting.svg import format_ci
from tools.app.record import Record
from tools.model_card import percent
from tools.predict.ensemble import Ensemble

RULES: Mapping[Rule, str] = {
    "f1": "the threshold with the highest F1",
    "youden": "the threshold with the highest sum of sensitivity and specificity",
    "sensitivity": "the highest threshold that reaches the wanted sensitivity",
}


def share(entry: Report) -> str:
    """A share with its 95 % interval, in whole percent; says so where either is undefined."""
    value, low, high = (entry[name] for name in ("value", "low", "high"))
    if value is None:
        return "an undefined share"
    interval = "no interval" if low is None or high is None else f"{percent(low).removesuffix(' %')} to {percent(high)}"
    return f"{percent(value)} ({interval})"


def complement(entry: Report) -> Report:
    """The entry of all others: 1 less the share, its interval turned round."""
    value, low, high = (None if entry[name] is None else 1 - entry[name] for name in ("value", "high", "low"))
    return {"value": value, "low": low, "high": high}


def threshold(name: str, value: float, record: Record) -> list[str]:
    """What the threshold `value` of the class `name` means: why it is this one, and what it does on test."""
    point, positives, images = record.points[name], record.positives[name], record.labelled[name]
    chosen = f"Validation chose it: it is {RULES[record.rule]} there."
    if point["threshold"] == DEFAULT_THRESHOLD:
        chosen = "Nothing chose it: validation had no image with that label, or none without."
    return [
        f"{name} is called from {value:.3f} on. {chosen}",
        f"On test it calls {share(point['sensitivity'])} of the {positives:,} images labelled {name}, and "
        f"{share(complement(point['specificity']))} of the {images - positives:,} others. "
        f"Of the images that it calls, {share(point['ppv'])} are labelled {name}.",
        f"AUROC {format_ci(record.auroc[name])}. In brackets are 95 % intervals.",
    ]


def facts(ensemble: Ensemble, record: Record) -> dict[str, str]:
    """Which networks answer, what they see, and how good they are on which images; each under its title."""
    names, views = [file.stem for file in ensemble.files], len(ensemble.views)
    title, means = ("Networks", "; the mean of them") if len(names) > 1 else ("Network", "")
    seen = f"{ensemble.image_size} × {ensemble.image_size} pixels"
    kind, whose = ("synthetic test images", ", who do not exist") if record.synthetic else ("test images", "")
    return {
        title: ", ".join(names) + means,
        "Sees": f"{seen}, in {views} views" if views > 1 else seen,
        "Mean AUROC": f"{format_ci(record.mean_auroc)} over {record.classes_in_mean} classes, with its 95 % interval",
        "Measured on": f"{record.images:,} {kind} of {record.patients:,} patients{whose}; none of them in training",
        "Probabilities": "calibrated on validation",
        "Thresholds": f"of each class {RULES[record.rule]} on validation",
        **({"Not learned, for want of labels": ", ".join(ensemble.untrained)} if ensemble.untrained else {}),
    }
