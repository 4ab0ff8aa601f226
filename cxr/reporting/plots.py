"""Plots of an evaluation: tables for `dvc plots`, and PNGs for people. The same numbers give the same bytes."""

from collections.abc import Callable, Mapping
from pathlib import Path
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from cxr.core.labels import CLASSES
from cxr.evaluation.calibration import reliability
from cxr.evaluation.metrics import Labels, Scores, has_both_classes, of_class
from cxr.evaluation.schema import Interval, Subgroups

# A curve keeps this many points at most: enough for the eye, and little in git.
POINTS = 200
OUTCOMES = ("true_negatives", "false_positives", "false_negatives", "true_positives")
Curves = dict[str, pd.DataFrame]


def file_name(name: str) -> str:
    """The name of a class as part of a file's name."""
    return name.replace(" ", "_")


def roc_curves(labels: Labels, scores: Scores) -> Curves:
    """A table for each class: false_positive_rate, true_positive_rate; no rows where it has one value only."""

    def points(truth: Labels, score: Scores) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        false_positive_rate, true_positive_rate, _ = roc_curve(truth, score)
        return false_positive_rate, true_positive_rate

    return _curves(points, ("false_positive_rate", "true_positive_rate"), labels, scores)


def precision_recall_curves(labels: Labels, scores: Scores) -> Curves:
    """A table for each class: recall, precision; no rows where it has one value only."""

    def points(truth: Labels, score: Scores) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        precision, recall, _ = precision_recall_curve(truth, score)
        return recall[::-1], precision[::-1]

    return _curves(points, ("recall", "precision"), labels, scores)


def write_curves(curves: Curves, folder: Path) -> None:
    """Write a CSV for each class into a new `folder`."""
    folder.mkdir()
    for name, table in curves.items():
        table.to_csv(folder / f"{file_name(name)}.csv", index=False)


def confusion_table(test: pd.DataFrame) -> pd.DataFrame:
    """Counts of each class as rows: class, actual, predicted, images."""
    rows = [
        (name, actual, predicted, int(row[outcome]))
        for name, row in test.iterrows()
        for outcome, (actual, predicted) in zip(OUTCOMES, np.ndindex(2, 2), strict=True)
    ]
    return pd.DataFrame(rows, columns=["class", "actual", "predicted", "images"])


def draw_curves(curves: Curves, title: str, path: Path) -> None:
    """One panel a class, of tables with two columns between 0 and 1."""
    figure, panels = _grid(title)
    for name, axes in zip(curves, panels, strict=True):
        table = curves[name]
        x, y = table.columns
        axes.plot(table[x], table[y], color="tab:blue")
        _label(axes, name if len(table) else f"{name}\n(one value only)", x, y)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        if x == "false_positive_rate":
            axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8, linestyle="--")
    _save(figure, path)


def draw_classes(test: pd.DataFrame, intervals: Mapping[str, Interval], note: str, path: Path) -> None:
    """AUROC of each class with its 95 % interval, highest first, beside chance."""
    ordered = test.dropna(subset="auroc").sort_values("auroc")
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    names = [f"{name}  ({positives})" for name, positives in zip(ordered.index, ordered["positives"], strict=True)]
    _draw_intervals(axes, names, [intervals[str(name)] for name in ordered.index])
    axes.axvline(0.5, color="0.4", linestyle="--", linewidth=0.8)
    axes.set(xlabel="AUROC, 95 % interval (dashed: chance)", title=f"AUROC by class (positives), {note}")
    _save(figure, path)


def draw_subgroups(subgroups: Subgroups, note: str, path: Path) -> None:
    """Mean AUROC of each group of patients with its 95 % interval; the means of one attribute can be compared."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    shown = {
        f"{attribute}: {name}  ({group.images:,} images, {group.classes_in_mean} classes)": group.auroc["mean"]
        for attribute, part in reversed(subgroups.root.items())
        for name, group in reversed(part.groups.items())
        if "mean" in group.auroc
    }
    _draw_intervals(axes, list(shown), list(shown.values()))
    axes.set(xlabel="mean AUROC, 95 % interval", title=f"Subgroups, {note}")
    _save(figure, path)


def draw_reliability(labels: Labels, before: Scores, after: Scores, bins: int, note: str, path: Path) -> None:
    """How often each class came true, by its probability, before and after calibration."""
    figure, panels = _grid(f"Reliability before and after calibration on validation, {note}")
    for column, axes in enumerate(panels):
        for scores, name, style in ((before, "before", "--"), (after, "after", "-")):
            curve = reliability(labels[:, column], scores[:, column], bins)
            axes.plot(curve["mean_predicted"], curve["observed"], style, marker=".", label=name)
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
        _label(axes, CLASSES[column], "probability", "share of positives")
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    panels[0].legend(fontsize="small")
    _save(figure, path)


def draw_confusion(test: pd.DataFrame, note: str, path: Path) -> None:
    """A confusion matrix of each class, coloured by the share of its row."""
    figure, panels = _grid(f"Confusion by class at thresholds chosen on validation, {note}")
    for (name, row), axes in zip(test.iterrows(), panels, strict=True):
        counts = row[list(OUTCOMES)].to_numpy(float).reshape(2, 2)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (actual, predicted), count in np.ndenumerate(counts):
            shade = "white" if shares[actual, predicted] > 0.5 else "black"
            axes.text(predicted, actual, f"{count:,.0f}", ha="center", va="center", color=shade)
        axes.set(xticks=[0, 1], xticklabels=["no", "yes"], yticks=[0, 1], yticklabels=["no", "yes"])
        _label(axes, str(name), "predicted", "actual")
    _save(figure, path)


def draw_training(curves: pd.DataFrame, note: str, path: Path) -> None:
    """Loss, AUROC on validation, and learning rate by epoch, a line a member."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    figure.suptitle(f"Training, {note}")
    loss, auroc, rate = figure.subplots(1, 3)
    for number, (member, curve) in enumerate(curves.groupby("member", sort=False)):
        colour = f"C{number % 10}"
        loss.plot(curve["epoch"], curve["train_loss"], color=colour, linestyle="--", label=f"{member}, train")
        loss.plot(curve["epoch"], curve["val_loss"], color=colour, label=f"{member}, validation")
        auroc.plot(curve["epoch"], curve["val_auroc"], color=colour, label=str(member))
        rate.plot(curve["epoch"], curve["lr"], color=colour, label=str(member))
    for axes, name in ((loss, "loss"), (auroc, "mean AUROC on validation"), (rate, "learning rate")):
        axes.set(xlabel="epoch", ylabel=name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(fontsize="small")
    _save(figure, path)


def draw_samples(
    pixels: Callable[[int], NDArray[np.uint8]], labels: Labels, probabilities: Scores, note: str, path: Path
) -> None:
    """A test image with each class in turn, its labels above, and the three most probable classes below.

    `pixels` gives the image of a row of `labels`, uint8 [height, width]: only those that are drawn are read.
    """
    figure, panels = _grid(f"Test images: labels above, the three most probable classes below, {note}", height=3.7)
    for image, axes in zip(_one_of_each(labels), panels, strict=True):
        if image is None:
            axes.set_axis_off()
            continue
        axes.imshow(pixels(image), cmap="gray", vmin=0, vmax=255)
        truth = [name for name, label in zip(CLASSES, labels[image], strict=True) if label == 1]
        axes.set_title(fill(", ".join(truth), 32), fontsize="small", fontweight="bold")
        likely = np.argsort(-probabilities[image], kind="stable")[:3]
        lines = [f"{CLASSES[column]} {probabilities[image, column]:.2f}" for column in likely]
        axes.set(xticks=[], yticks=[])
        axes.set_xlabel("\n".join(lines), fontsize="small")
    _save(figure, path)


def _one_of_each(labels: Labels) -> list[int | None]:
    """For each class the first image that has it and was not chosen for another; None where there is none."""
    chosen: list[int | None] = []
    for column in range(labels.shape[1]):
        candidates = [int(image) for image in np.flatnonzero(labels[:, column] == 1) if image not in chosen]
        chosen.append(candidates[0] if candidates else None)
    return chosen


def _curves(
    points: Callable[[Labels, Scores], tuple[NDArray[np.float64], NDArray[np.float64]]],
    columns: tuple[str, str],
    labels: Labels,
    scores: Scores,
) -> Curves:
    curves = {name: pd.DataFrame(columns=list(columns), dtype=float) for name in CLASSES}
    for column in np.flatnonzero(has_both_classes(labels)):
        table = np.stack(points(*of_class(column, labels, scores)), axis=1)
        kept = np.unique(np.linspace(0, len(table) - 1, POINTS).round().astype(int))
        curves[CLASSES[column]] = pd.DataFrame(table[kept], columns=list(columns))
    return curves


def _grid(title: str, height: float = 2.8) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(13, 3 * height), layout="constrained")
    figure.suptitle(title)
    return figure, list(figure.subplots(3, 5).flat)


def _draw_intervals(axes: Axes, names: list[str], entries: list[Interval]) -> None:
    """A point with its interval for each name, from value, low and high; the point alone where there is no interval."""
    shown = [
        (name, entry.value, entry.low, entry.high)
        for name, entry in zip(names, entries, strict=True)
        if entry.value is not None
    ]
    for place, (name, value, low, high) in enumerate(shown):
        reach = None if low is None or high is None else [[max(value - low, 0)], [max(high - value, 0)]]
        axes.errorbar([value], [name], xerr=reach, fmt="o", color="tab:blue", capsize=3)
        axes.annotate(f"{value:.3f}", (value, place), (0, 4), textcoords="offset points", fontsize="x-small")
    axes.margins(y=0.05)


def _label(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize="medium")
    axes.set_xlabel(x.replace("_", " "), fontsize="small")
    axes.set_ylabel(y.replace("_", " "), fontsize="small")
    axes.tick_params(labelsize="small")


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=80, metadata={"Software": None})
