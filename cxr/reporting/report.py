"""The HTML report of a run of the pipeline or of an external evaluation, without the sections of what is not known.

The page is self-contained: it loads no other file and runs no script. The same run gives the same bytes. Its text is in
the Jinja template `report.html`, which escapes all values.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from cxr.core.labels import CLASSES, FINDINGS, NO_FINDING
from cxr.evaluation.external import ExternalMetrics
from cxr.evaluation.localisation import IOUS
from cxr.evaluation.metrics import Scores, nanmean
from cxr.evaluation.schema import (
    Counts,
    DataSummary,
    EnsembleMetrics,
    ExpertFinding,
    Fairness,
    GroupMetrics,
    GroupRate,
    Interval,
    Localisation,
    MemberMetrics,
    Members,
    Metrics,
    OperatingPoint,
    SplitSummary,
    Subgroups,
    nan_to_none,
)
from cxr.models.device import library_versions
from cxr.reporting import published, svg
from cxr.reporting.examples import Example, Examples, Map, image_url, overlay_url
from cxr.reporting.run import Run
from cxr.reporting.svg import Axis, Line, Panel, draw_panel, fit_axis, unit_axis
from cxr.reporting.text import attribute_title, class_title, format_ci, format_number, format_param

TEMPLATE = Path(__file__).with_suffix(".html")
MAX_PAIRS = 20  # near-duplicates that are listed
MAX_GAPS = 12  # differences of error rates that are listed
OTHER_CLASSES = 3  # listed for an example image, beside its own class
METHOD_NAMES = {
    "grad_cam": "Grad-CAM",
    "layer_cam": "LayerCAM",
    "attention": "Attention",
    "random": "Random map (control)",
    "centre": "Centre map (control)",
    "prior": "Other patients' boxes (control)",
}
RULES = {
    "f1": "maximum F1",
    "youden": "maximum Youden index (sensitivity + specificity − 1)",
    "sensitivity": "required sensitivity",
    "fixed": "one fixed threshold for all classes",
}
# The sections by id, in their order. Those without content are left out (`_is_known`).
SECTIONS = {
    "data": "Data and models",
    "auroc": "AUROC by class",
    "curves": "ROC and precision-recall curves",
    "points": "Operating points",
    "calibration": "Calibration",
    "prevalence": "Prevalence",
    "external": "Fit of the decisions to these data",
    "examples": "Example images",
    "localisation": "Localisation",
    "experts": "Radiologists' labels",
    "subgroups": "Subgroups",
    "fairness": "Error rates by group",
    "members": "Ensemble members",
    "training": "Training",
    "duplicates": "Near-duplicates",
    "published": "Comparison with published results",
}
SPLIT_TITLES = {"train": "Train", "val": "Validation", "test": "Test"}
UNDEFINED = Interval(value=None, low=None, high=None)


def write_report(run: Run, path: Path) -> None:
    """Write the report to `path`."""
    path.write_text(render(run), encoding="utf-8")


def render(run: Run) -> str:
    """Return the report as HTML."""
    return load_template().render(**context(run)) + "\n"


@cache
def load_template() -> Template:
    """Load the template with its filters and functions."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"ci": format_ci, "number": format_number, "param": format_param}
    environment.filters |= {"title_of": class_title, "attribute": attribute_title}
    environment.globals |= {"draw_interval": svg.draw_interval, "draw_legend_key": svg.draw_legend_key}
    environment.globals["reader_range"] = reader_range
    environment.globals |= {"draw_scale": svg.draw_scale, "published": published, "method_names": METHOD_NAMES}
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8"))


def context(run: Run) -> dict[str, Any]:
    """Return the variables of the template."""
    metrics = run.metrics
    return {
        **dict(metrics),
        "sections": {name: title for name, title in SECTIONS.items() if _is_known(name, run)},
        "is_external": isinstance(metrics, ExternalMetrics),
        "splits": split_columns(metrics),
        "sample_size": Counts(images=len(run.sample), patients=run.sample["patient"].nunique()),
        "synthetic": metrics.classes.synthetic,
        "findings": FINDINGS,
        "class_names": CLASSES,
        "descriptions": run.members,
        "parameters": parameters(run),
        "libraries": library_versions(),
        "rule": RULES[metrics.operating_points.rule],
        "ranked": rank_classes(metrics.intervals.auroc),
        "auroc_axis": auroc_axis(metrics.intervals.auroc.values()),
        "panels": class_panels(run),
        "training": list(training_panels(run)),
        "groups": list(list_groups(metrics.subgroups)),
        "group_names": list_group_names(metrics.data),
        "mean_error_if_calibrated": nan_to_none(mean_error_if_calibrated(metrics)),
        "rate_gaps": largest_rate_gaps(metrics.fairness),
        "group_axis": auroc_axis(auroc for *_, auroc in list_groups(metrics.subgroups)),
        "member_axis": auroc_axis(one.auroc["mean_15"] for one in list_member_metrics(metrics.members)),
        "hit_rates": hit_rate_panel(metrics.localisation) if metrics.localisation else None,
        **example_section(run),
        "thresholds": dict(zip(CLASSES, map(nan_to_none, run.decisions.calibrated_thresholds), strict=True)),
        "max_pairs": MAX_PAIRS,
        **comparability(run),
    }


def example_section(run: Run) -> dict[str, Any]:
    """Return the variables of the example images; none without images."""
    if run.examples is None:
        return {}
    return {
        "examples": list(example_cards(run, run.examples)),
        "method": METHOD_NAMES[run.examples.method],
        "no_maps": run.examples.problem,
    }


def split_columns(metrics: Metrics | ExternalMetrics) -> dict[str, SplitSummary]:
    """Return the counts of each split by the head of its column; an external evaluation has test alone."""
    splits = metrics.data.splits
    titles = {"test": "Images"} if isinstance(metrics, ExternalMetrics) else SPLIT_TITLES
    return {title: splits[name] for name, title in titles.items()}


def comparability(run: Run) -> dict[str, Any]:
    """Return the variables of the comparison with published results."""
    data = published.describe_data(
        run.sample, run.official, name=run.metrics.data.name, is_synthetic=run.metrics.classes.synthetic
    )
    reasons = {split: published.reasons_not_comparable(data, split) for split in ("official", "random")}
    return {"run_data": data, "not_comparable": reasons}


def parameters(run: Run) -> list[tuple[str, object]]:
    """Return name and value of each parameter of training and evaluation."""
    trained = next(iter(run.members.values()), {}).get("params", {})
    return list(_flatten({**trained, **run.params}))


def rank_classes(auroc: Mapping[str, Interval]) -> list[str]:
    """Return the classes in descending order of AUROC, undefined ones last."""
    return sorted(CLASSES, key=lambda name: -(auroc[name].value or 0))


def auroc_axis(intervals: Iterable[Interval]) -> Axis:
    """Return an axis that spans the values, their intervals, 0.5 and 1."""
    bounds = [bound for one in intervals for bound in (one.value, one.low, one.high) if bound is not None]
    return fit_axis("AUROC", [0.5, 1, *bounds], most=5)


def class_panels(run: Run) -> dict[str, dict[str, Markup]]:
    """Return the figures `roc`, `precision_recall` and `reliability` of each class."""
    points, intervals, curves = run.metrics.operating_points.classes, run.metrics.intervals, run.curves
    return {
        name: {
            "roc": _roc(name, curves.roc[name], points[name], intervals.auroc[name]),
            "precision_recall": _precision_recall(
                name, curves.precision_recall[name], points[name], intervals.average_precision[name]
            ),
            "reliability": _reliability(name, curves.reliability_before[name], curves.reliability_after[name]),
        }
        for name in CLASSES
    }


def training_panels(run: Run) -> Iterator[dict[str, Any]]:
    """Yield name, best epoch and the figures `loss` and `auroc` of each member of the ensemble."""
    evaluated = run.training[run.training["member"].isin(list(run.members))]
    for member, curve in evaluated.groupby("member", sort=False):
        best = curve[curve["epoch"] == run.members[str(member)].get("best_epoch")]
        point = (float(best["epoch"].iloc[0]), float(best["val_auroc"].iloc[0])) if len(best) else None
        yield {
            "member": member,
            "best_epoch": int(point[0]) if point else None,
            "loss": _loss(str(member), curve),
            "auroc": _validation_auroc(str(member), curve, point),
        }


def list_groups(subgroups: Subgroups) -> Iterator[tuple[str, str, GroupMetrics, Interval]]:
    """Yield attribute, group, metrics and mean AUROC of each group of patients."""
    for attribute, part in subgroups.root.items():
        for name, group in part.groups.items():
            yield attribute, name, group, group.auroc.get("mean", UNDEFINED)


def list_group_names(data: DataSummary) -> list[tuple[str, str]]:
    """Return attribute and name of each group of `SplitSummary.groups`, without repetition."""
    splits = [split.groups for split in data.splits.values()]
    return list(
        dict.fromkeys((attribute, name) for groups in splits for attribute in groups for name in groups[attribute])
    )


def mean_error_if_calibrated(metrics: Metrics | ExternalMetrics) -> float:
    """Return the mean over the classes of the calibration error under perfect calibration; nan without classes."""
    errors = [one.calibration_error_if_calibrated for one in metrics.prevalence.classes.values()]
    return nanmean(np.array([np.nan if error is None else error for error in errors]))


def reader_range(finding: ExpertFinding, rate: str) -> str:
    """Return the lowest and highest sensitivity or specificity of the radiologists as text."""
    values = [getattr(reader, rate).value for reader in finding.readers.values()]
    defined = [value for value in values if value is not None]
    return f"{min(defined):.2f} to {max(defined):.2f}" if defined else "undefined"


def largest_rate_gaps(fairness: Fairness) -> list[tuple[str, str, str, str, GroupRate]]:
    """Return the comparisons with the lowest p-values, and all of No Finding: attribute, group, rate, class and values.

    Comparisons without a p-value are left out.
    """
    gaps = [
        (attribute, group, kind.replace("_", " "), name, rate)
        for attribute, of_attribute in fairness.groups.items()
        for group, rates in of_attribute.items()
        for kind in ("true_positive_rate", "false_positive_rate")
        for name, rate in getattr(rates, kind).items()
        if rate.p_value is not None
    ]
    lowest = sorted(gaps, key=lambda gap: gap[-1].p_value)[:MAX_GAPS]
    return [gap for gap in gaps if gap in lowest or gap[2:4] == ("false positive rate", NO_FINDING)]


def list_member_metrics(members: Members) -> list[EnsembleMetrics | MemberMetrics]:
    """Return the metrics of the ensemble, then those of its members."""
    return [members.ensemble, *members.members.values()]


def hit_rate_panel(localisation: Localisation) -> Markup | None:
    """Return the figure of hit rates by IoU threshold, a line for each kind of map; None without scores."""
    scores = localisation.all.scores
    if not scores:
        return None
    lines = [
        Line(IOUS, [scores[f"iou_{iou}"][kind].value or 0 for iou in IOUS], style, has_markers=True)
        for style, kind in enumerate(scores["energy"])
    ]
    panel = Panel(Axis("IoU threshold", 0.1, 0.7, (0.1, 0.3, 0.5, 0.7)), unit_axis("hit rate"), lines)
    return draw_panel(panel, "Fraction of boxes hit by IoU threshold, for each kind of map")


def example_cards(run: Run, examples: Examples) -> Iterator[dict[str, Any]]:
    """Yield the variables of each example image."""
    for example, image, saliency in zip(examples.chosen, examples.images, examples.maps, strict=True):
        name, labels = CLASSES[example.column], run.test.labels[example.row]
        boxes = run.boxes[(run.boxes["row"] == example.row) & (run.boxes["class"] == name)]
        yield {
            "kind": example.kind,
            "name": name,
            "image": run.test.table["image"].iloc[example.row],
            "labels": [label for label, value in zip(CLASSES, labels, strict=True) if value == 1],
            "radiograph": image_url(image),
            **_overlay(image, saliency),
            "boxes": boxes[["x", "y", "width", "height"]].to_dict("records"),
            "rows": [_class_row(run, example.row, column) for column in _columns(run.calibrated[example.row], example)],
        }


def _is_known(section: str, run: Run) -> bool:
    """Return whether there is something to show in a section."""
    is_external = isinstance(run.metrics, ExternalMetrics)
    has = {
        "external": is_external,
        "examples": run.examples is not None,
        "localisation": run.metrics.localisation is not None,
        "members": not is_external or len(run.metrics.members.members) > 1,
        "training": len(run.training) > 0,
        "duplicates": not is_external,
        "experts": len(run.metrics.experts.tables) > 0,
    }
    return has.get(section, True)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _roc(name: str, curve: pd.DataFrame, point: OperatingPoint, auroc: Interval) -> Markup:
    specificity, sensitivity = point.specificity.value, point.sensitivity.value
    ring = None if specificity is None or sensitivity is None else (1 - specificity, sensitivity)
    panel = Panel(unit_axis("1 − specificity"), unit_axis("sensitivity"), [_line(curve)], ring, has_diagonal=True)
    return draw_panel(panel, f"ROC curve of {class_title(name)}, AUROC {format_ci(auroc)}")


def _precision_recall(name: str, curve: pd.DataFrame, point: OperatingPoint, average_precision: Interval) -> Markup:
    sensitivity, ppv = point.sensitivity.value, point.ppv.value
    ring = None if sensitivity is None or ppv is None else (sensitivity, ppv)
    panel = Panel(unit_axis("recall"), unit_axis("precision"), [_line(curve)], ring)
    value = format_ci(average_precision)
    return draw_panel(panel, f"Precision-recall curve of {class_title(name)}, average precision {value}")


def _reliability(name: str, before: pd.DataFrame, after: pd.DataFrame) -> Markup:
    lines = [
        Line([*table["mean_predicted"]], [*table["observed"]], style, has_markers=True)
        for table, style in ((after, 0), (before, 3))
    ]
    highest = pd.concat([after, before])[["mean_predicted", "observed"]].to_numpy().max() if len(after) else 1
    axis = fit_axis("predicted probability", [0, highest])
    panel = Panel(axis, axis._replace(name="observed fraction"), lines, has_diagonal=True)
    return draw_panel(panel, f"Reliability of {class_title(name)} before and after calibration")


def _loss(member: str, curve: pd.DataFrame) -> Markup:
    lines = [Line([*curve["epoch"]], [*curve[name]], style) for style, name in enumerate(("val_loss", "train_loss"))]
    losses = fit_axis("loss", [*curve["train_loss"], *curve["val_loss"]])
    return draw_panel(
        Panel(fit_axis("epoch", curve["epoch"]), losses, lines), f"Training and validation loss of {member} by epoch"
    )


def _validation_auroc(member: str, curve: pd.DataFrame, best: tuple[float, float] | None) -> Markup:
    auroc = fit_axis("mean AUROC", curve["val_auroc"])
    line = Line([*curve["epoch"]], [*curve["val_auroc"]])
    return draw_panel(
        Panel(fit_axis("epoch", curve["epoch"]), auroc, [line], best), f"Mean validation AUROC of {member} by epoch"
    )


def _line(table: pd.DataFrame) -> Line:
    x, y = table.columns
    return Line([*table[x]], [*table[y]])


def _overlay(image: Any, saliency: Map | None) -> dict[str, Any]:
    return {"has_map": saliency is not None, "overlay": None if saliency is None else overlay_url(image, saliency)}


def _columns(probabilities: Scores, example: Example) -> list[int]:
    """Return the class of the example, then the most probable other classes."""
    others = [int(column) for column in np.argsort(-probabilities, kind="stable") if column != example.column]
    return [example.column, *others[:OTHER_CLASSES]]


def _class_row(run: Run, row: int, column: int) -> dict[str, Any]:
    probability, threshold = float(run.calibrated[row, column]), float(run.decisions.calibrated_thresholds[column])
    return {
        "name": CLASSES[column],
        "probability": nan_to_none(probability),
        "threshold": nan_to_none(threshold),
        "predicted_positive": probability >= threshold,
        "positive": bool(run.test.labels[row, column] == 1),
    }
