"""The report of a run: one page for people, made from what evaluate measured.

The page needs no network, no script and no other file. Nothing in it but what it is made from: the same run gives the
same bytes. Its text is in `report.html`, a Jinja template that escapes whatever it is given.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from cxr.core.labels import CLASSES, FINDINGS
from cxr.evaluation.calibration import reliability
from cxr.evaluation.localisation import IOUS
from cxr.evaluation.metrics import Scores
from cxr.evaluation.schema import (
    EnsembleMetrics,
    GroupMetrics,
    Interval,
    Localisation,
    MemberMetrics,
    Metrics,
    Subgroups,
    nan_to_none,
)
from cxr.models.device import library_versions
from cxr.reporting import published
from cxr.reporting import svg as figures
from cxr.reporting.examples import Example, Examples, Predicted, image_data_url, overlay_data_url
from cxr.reporting.plots import Curves, precision_recall_curves, roc_curves
from cxr.reporting.svg import Line, Panel, fitting_axis, share_axis

TEMPLATE = Path(__file__).with_suffix(".html")
PAIRS_SHOWN = 20  # of images that look like one film
LIKELY_SHOWN = 3  # classes of a sample image, beside the one that it is shown for
MAP_NAMES = {
    "grad_cam": "Grad-CAM",
    "layer_cam": "LayerCAM",
    "attention": "Attention",
    "random": "Random map (control)",
    "centre": "Centre map (control)",
}


class Run(NamedTuple):
    """All that the page is made from."""

    predicted: Predicted  # of the test images
    samples: Examples  # some of them
    metrics: Metrics
    sample: pd.DataFrame  # all images: image, patient, split and the 15 classes
    official: pd.DataFrame  # NIH's lists: image and list; may be empty
    networks: Mapping[str, Mapping[str, Any]]  # description of each member's model file, by the member's name
    params: Mapping[str, Any]  # of the evaluation
    curves: pd.DataFrame  # of training: member, epoch, train_loss, val_loss, val_auroc
    boxes: pd.DataFrame  # of the test images, as returned by `boxes_of_images`


def write_report(run: Run, path: Path) -> None:
    """Write the page to `path`."""
    path.write_text(render(run), encoding="utf-8")


def render(run: Run) -> str:
    """The page as HTML."""
    return load_template().render(**context(run)) + "\n"


@cache
def load_template() -> Template:
    """The template, with the words and figures that it asks for."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"words": figures.format_ci, "full": full_name, "number": number, "shown": shown}
    environment.globals |= {"draw_interval": figures.draw_interval, "draw_key": figures.draw_key}
    environment.globals |= {"draw_scale": figures.draw_scale, "published": published, "map_names": MAP_NAMES}
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8"))


def context(run: Run) -> dict[str, Any]:
    """What the template is given."""
    synthetic = run.metrics.classes.synthetic
    ours = published.about_our_data(run.sample, run.official, is_synthetic=synthetic)
    return {
        **dict(run.metrics),
        "synthetic": synthetic,
        "findings": FINDINGS,
        "class_names": CLASSES,
        "networks": run.networks,
        "parameters": parameters(run),
        "libraries": library_versions(),
        "ranked": ranked(run.metrics.intervals.auroc),
        "auroc_axis": auroc_axis(run.metrics.intervals.auroc.values()),
        "panels": panels(run),
        "training": list(training(run)),
        "groups": list(groups(run.metrics.subgroups)),
        "group_axis": auroc_axis(entry for *_, entry in groups(run.metrics.subgroups)),
        "member_axis": auroc_axis(member.auroc["mean_15"] for member in members(run)),
        "hits": hits(run.metrics.localisation),
        "samples": list(cards(run)),
        "maps_story": run.samples.story,
        "thresholds": dict(zip(CLASSES, map(nan_to_none, run.predicted.thresholds), strict=True)),
        "pairs_shown": PAIRS_SHOWN,
        "ours": ours,
        "why_not": {split: published.differences(ours, split) for split in ("official", "random")},
    }


def full_name(name: str) -> str:
    """A class as it is written in a sentence."""
    return name.replace("_", " ").capitalize()


def number(value: float | None, digits: int = 3) -> str:
    """A number of the metrics; None is an undefined one."""
    return "not defined" if value is None else f"{value:.{digits}f}"


def shown(value: object) -> str:
    """A parameter's value as params.yaml has it, lists on one line."""
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def parameters(run: Run) -> list[tuple[str, object]]:
    """Name and value of each parameter of training and evaluation."""
    trained = next(iter(run.networks.values())).get("params", {})
    return list(_flatten({**trained, **run.params}))


def ranked(intervals: Mapping[str, Interval]) -> list[str]:
    """The classes by falling AUROC, undefined ones last."""
    return sorted(CLASSES, key=lambda name: -(intervals[name].value or 0))


def auroc_axis(entries: Iterable[Interval]) -> figures.Axis:
    """An axis for these values and their intervals, with chance and 1 on it."""
    bounds = [bound for entry in entries for bound in (entry.value, entry.low, entry.high) if bound is not None]
    return fitting_axis("AUROC", [0.5, 1, *bounds], most=5)


def panels(run: Run) -> dict[str, dict[str, Markup]]:
    """The figures of each class: roc, precision_recall and reliability."""
    labels, scores = run.predicted.labels, run.predicted.before
    roc, precision_recall = roc_curves(labels, scores), precision_recall_curves(labels, scores)
    return {
        name: {
            "roc": _roc(name, roc, run.metrics),
            "precision_recall": _precision_recall(name, precision_recall, run.metrics),
            "reliability": _reliability(column, run),
        }
        for column, name in enumerate(CLASSES)
    }


def training(run: Run) -> Iterator[dict[str, Any]]:
    """For each network that was evaluated its name, the epoch that was kept, and the figures loss and auroc."""
    ours = run.curves[run.curves["member"].isin(list(run.networks))]
    for member, curve in ours.groupby("member", sort=False):
        kept = curve[curve["epoch"] == run.networks[str(member)].get("best_epoch")]
        point = (float(kept["epoch"].iloc[0]), float(kept["val_auroc"].iloc[0])) if len(kept) else None
        epochs = fitting_axis("epoch", curve["epoch"])
        losses = [*curve["train_loss"], *curve["val_loss"]]
        lines = [
            Line([*curve["epoch"]], [*curve[name]], style) for style, name in enumerate(("val_loss", "train_loss"))
        ]
        loss = Panel(epochs, fitting_axis("loss", losses), lines)
        areas = [Line([*curve["epoch"]], [*curve["val_auroc"]])]
        auroc = Panel(epochs, fitting_axis("mean AUROC", curve["val_auroc"]), areas, point)
        yield {
            "member": member,
            "kept": int(point[0]) if point else None,
            "loss": figures.draw_panel(loss, f"Loss of {member} by epoch, in training and on validation"),
            "auroc": figures.draw_panel(auroc, f"Mean AUROC of {member} on validation by epoch"),
        }


def groups(subgroups: Subgroups) -> Iterator[tuple[str, str, GroupMetrics, Interval]]:
    """Attribute, group, what is known of it, and its mean AUROC (undefined where it has too few of every class)."""
    undefined = Interval(value=None, low=None, high=None)
    for attribute, part in subgroups.root.items():
        for name, group in part.groups.items():
            yield attribute, name, group, group.auroc.get("mean", undefined)


def members(run: Run) -> list[EnsembleMetrics | MemberMetrics]:
    """The ensemble, then each of its networks."""
    return [run.metrics.members.ensemble, *run.metrics.members.members.values()]


def hits(localisation: Localisation) -> Markup | None:
    """How many boxes each kind of map hits, by how well it has to; None where nothing was scored."""
    scores = localisation.all.scores
    if not scores:
        return None
    lines = [
        Line(IOUS, [scores[f"iou_{iou}"][kind].value or 0 for iou in IOUS], style, is_marked=True)
        for style, kind in enumerate(scores["energy"])
    ]
    panel = Panel(figures.Axis("overlap (IoU) of at least", 0.1, 0.7, (0.1, 0.3, 0.5, 0.7)), share_axis("hit"), lines)
    return figures.draw_panel(panel, "Share of boxes hit, by the overlap that counts as a hit, for each kind of map")


def cards(run: Run) -> Iterator[dict[str, Any]]:
    """What is shown of each sample image."""
    for chosen, pixels, heat in zip(run.samples.chosen, run.samples.pixels, run.samples.maps, strict=True):
        name, truth = CLASSES[chosen.column], run.predicted.labels[chosen.place]
        of_image = run.boxes[(run.boxes["row"] == chosen.place) & (run.boxes["class"] == name)]
        yield {
            "kind": chosen.kind,
            "name": name,
            "image": run.predicted.table["image"].iloc[chosen.place],
            "labels": [label for label, is_there in zip(CLASSES, truth, strict=True) if is_there == 1],
            "film": image_data_url(pixels),
            "is_mapped": heat is not None,
            "overlay": None if heat is None else overlay_data_url(pixels, heat),
            "boxes": of_image[["x", "y", "width", "height"]].to_dict("records"),
            "rows": [
                _row(run, chosen.place, column) for column in _columns_shown(run.predicted.after[chosen.place], chosen)
            ],
        }


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _roc(name: str, curves: Curves, metrics: Metrics) -> Markup:
    point = metrics.operating_points.classes[name]
    specificity, sensitivity = point.specificity.value, point.sensitivity.value
    place = None if specificity is None or sensitivity is None else (1 - specificity, sensitivity)
    panel = Panel(
        share_axis("1 − specificity"), share_axis("sensitivity"), _curve(curves[name]), place, is_diagonal=True
    )
    return figures.draw_panel(
        panel, f"ROC curve of {full_name(name)}, AUROC {figures.format_ci(metrics.intervals.auroc[name])}"
    )


def _precision_recall(name: str, curves: Curves, metrics: Metrics) -> Markup:
    point = metrics.operating_points.classes[name]
    sensitivity, ppv = point.sensitivity.value, point.ppv.value
    place = None if sensitivity is None or ppv is None else (sensitivity, ppv)
    panel = Panel(share_axis("sensitivity"), share_axis("PPV"), _curve(curves[name]), place)
    area = figures.format_ci(metrics.intervals.average_precision[name])
    return figures.draw_panel(panel, f"Precision and recall of {full_name(name)}, average precision {area}")


def _reliability(column: int, run: Run) -> Markup:
    bins = run.metrics.calibration.bins
    tables = [
        reliability(run.predicted.labels[:, column], scores[:, column], bins)
        for scores in (run.predicted.after, run.predicted.before)
    ]
    lines = [
        Line([*table["mean_predicted"]], [*table["observed"]], style, is_marked=True)
        for table, style in zip(tables, (0, 3), strict=True)
    ]
    highest = pd.concat(tables)[["mean_predicted", "observed"]].to_numpy().max() if len(tables[0]) else 1
    probability = fitting_axis("probability", [0, highest])
    panel = Panel(probability, probability._replace(name="share with it"), lines, is_diagonal=True)
    return figures.draw_panel(panel, f"Reliability of {full_name(CLASSES[column])} before and after calibration")


def _curve(table: pd.DataFrame) -> list[Line]:
    x, y = table.columns
    return [Line([*table[x]], [*table[y]])]


def _columns_shown(probabilities: Scores, chosen: Example) -> list[int]:
    """The class that the image is shown for, then the most probable others."""
    likely = [int(column) for column in np.argsort(-probabilities, kind="stable") if column != chosen.column]
    return [chosen.column, *likely[:LIKELY_SHOWN]]


def _row(run: Run, place: int, column: int) -> dict[str, Any]:
    probability, threshold = float(run.predicted.after[place, column]), float(run.predicted.thresholds[column])
    return {
        "name": CLASSES[column],
        "probability": nan_to_none(probability),
        "threshold": nan_to_none(threshold),
        "is_called": probability >= threshold,
        "is_there": bool(run.predicted.labels[place, column] == 1),
    }
