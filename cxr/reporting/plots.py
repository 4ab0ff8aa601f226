"""The CSV tables for `dvc plots` and the PNGs in `plots/`. The same input gives the same bytes."""

from collections.abc import Callable, Iterable
from pathlib import Path
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from cxr.core.labels import CLASSES
from cxr.evaluation.metrics import Labels
from cxr.evaluation.schema import Classes, Interval, PredictionMetrics, Subgroups
from cxr.evaluation.summary import Predictions
from cxr.reporting.curves import Curves, CurveTables
from cxr.reporting.run import Run
from cxr.reporting.text import attribute_title

OUTCOMES = ("true_negatives", "false_positives", "false_negatives", "true_positives")
TOP_CLASSES = 3  # shown below each image


def file_name(class_name: str) -> str:
    """Return the name of a class as part of a file name."""
    return class_name.replace(" ", "_")


def write_tables(run: Run, folder: Path) -> None:
    """Write the CSV tables: roc/CLASS.csv, precision_recall/CLASS.csv, training.csv, classes.csv and confusion.csv."""
    write_curves(run.curves.roc, folder / "roc")
    write_curves(run.curves.precision_recall, folder / "precision_recall")
    run.training.to_csv(folder / "training.csv", index=False)
    classes = class_table(run.metrics.classes)
    classes[["auroc", "average_precision", "positives"]].to_csv(folder / "classes.csv")
    confusion_table(classes).to_csv(folder / "confusion.csv", index=False)


def write_curves(curves: CurveTables, folder: Path) -> None:
    """Write a CSV for each class into a new `folder`."""
    folder.mkdir()
    for name, table in curves.items():
        table.to_csv(folder / f"{file_name(name)}.csv", index=False)


def class_table(classes: Classes) -> pd.DataFrame:
    """Return the metrics of each class as a table, a row for each class; nan if undefined."""
    rows = [metrics.model_dump() for metrics in classes.classes.values()]
    return pd.DataFrame(rows, index=pd.Index(list(classes.classes), name="class"))


def confusion_table(classes: pd.DataFrame) -> pd.DataFrame:
    """Return the confusion matrices as rows: class, actual, predicted, images."""
    rows = [
        (name, actual, predicted, int(row[outcome]))
        for name, row in classes.iterrows()
        for outcome, (actual, predicted) in zip(OUTCOMES, np.ndindex(2, 2), strict=True)
    ]
    return pd.DataFrame(rows, columns=["class", "actual", "predicted", "images"])


def plot_curves(curves: CurveTables, title: str, path: Path) -> None:
    """Plot a panel for each class, from tables with two columns between 0 and 1."""
    x, y = next(iter(curves.values())).columns
    figure, panels = _unit_grid(title, x.replace("_", " "), y.replace("_", " "))
    for (name, table), axes in zip(curves.items(), panels, strict=True):
        axes.plot(table[x], table[y], color="tab:blue")
        axes.set_title(name if len(table) else f"{name} (undefined)", fontsize="medium")
        if x == "false_positive_rate":
            axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8, linestyle="--")
    _save(figure, path)


def plot_classes(metrics: PredictionMetrics, note: str, path: Path) -> None:
    """Plot the AUROC of each class with its 95 % interval, highest first."""
    classes = class_table(metrics.classes).dropna(subset="auroc").sort_values("auroc")
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    names = [f"{name}  ({positives})" for name, positives in zip(classes.index, classes["positives"], strict=True)]
    _plot_intervals(axes, names, [metrics.intervals.auroc[str(name)] for name in classes.index])
    axes.axvline(0.5, color="0.4", linestyle="--", linewidth=0.8)
    axes.set(xlabel="AUROC, 95 % interval (dashed: chance level)", title=f"AUROC by class (positives), {note}")
    _save(figure, path)


def plot_subgroups(subgroups: Subgroups, note: str, path: Path) -> None:
    """Plot the mean AUROC of each group of patients with its 95 % interval."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    rows = {
        f"{attribute_title(attribute)}: {name}  ({group.images:,} images, {group.classes_in_mean} classes)": group
        for attribute, part in reversed(subgroups.root.items())
        for name, group in reversed(part.groups.items())
        if "mean" in group.auroc
    }
    _plot_intervals(axes, list(rows), [group.auroc["mean"] for group in rows.values()])
    axes.set(xlabel="mean AUROC, 95 % interval", title=f"Subgroups, {note}")
    _save(figure, path)


def plot_reliability(curves: Curves, note: str, path: Path) -> None:
    """Plot the fraction of positives by predicted probability, before and after calibration."""
    title = f"Reliability before and after calibration on validation, {note}"
    figure, panels = _unit_grid(title, "predicted probability", "fraction of positives")
    series = ((curves.reliability_before, "before", "--"), (curves.reliability_after, "after", "-"))
    for class_name, axes in zip(CLASSES, panels, strict=True):
        for tables, name, style in series:
            curve = tables[class_name]
            axes.plot(curve["mean_predicted"], curve["observed"], style, marker=".", label=name)
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
        axes.set_title(class_name, fontsize="medium")
    panels[0].legend(fontsize="small")
    _save(figure, path)


def plot_confusion(classes: Classes, note: str, path: Path) -> None:
    """Plot the confusion matrix of each class; colours are fractions of the row."""
    title = f"Confusion matrices at thresholds chosen on validation, {note}"
    figure, panels = _class_grid(title, "predicted", "actual")
    for (name, row), axes in zip(class_table(classes).iterrows(), panels, strict=True):
        counts = row[list(OUTCOMES)].to_numpy(float).reshape(2, 2)
        fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
        for (actual, predicted), count in np.ndenumerate(counts):
            colour = "white" if fractions[actual, predicted] > 0.5 else "black"
            axes.text(predicted, actual, f"{count:,.0f}", ha="center", va="center", color=colour)
        axes.set_title(str(name), fontsize="medium")
    panels[0].set(xticks=[0, 1], xticklabels=["no", "yes"], yticks=[0, 1], yticklabels=["no", "yes"])
    _save(figure, path)


def plot_training(training: pd.DataFrame, note: str, path: Path) -> None:
    """Plot loss, validation AUROC and learning rate by epoch, a line for each member."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    figure.suptitle(f"Training, {note}")
    loss, auroc, rate = figure.subplots(1, 3)
    for number, (member, curve) in enumerate(training.groupby("member", sort=False)):
        colour = f"C{number % 10}"
        loss.plot(curve["epoch"], curve["train_loss"], color=colour, linestyle="--", label=f"{member}, train")
        loss.plot(curve["epoch"], curve["val_loss"], color=colour, label=f"{member}, validation")
        auroc.plot(curve["epoch"], curve["val_auroc"], color=colour, label=str(member))
        rate.plot(curve["epoch"], curve["lr"], color=colour, label=str(member))
    for axes, name in ((loss, "loss"), (auroc, "mean validation AUROC"), (rate, "learning rate")):
        axes.set(xlabel="epoch", ylabel=name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(fontsize="small")
    _save(figure, path)


def plot_images(test_image: Callable[[int], NDArray[np.uint8]], test: Predictions, note: str, path: Path) -> None:
    """Plot a test image with each class, its labels above and its most probable classes below.

    Args:
        test_image: returns the image in a row of `test`, uint8 [height, width]; only images that are shown are read.
        test: the test images.
        note: part of the title.
        path: of the PNG.
    """
    figure = Figure(figsize=(13, 11), layout="constrained")
    figure.suptitle(f"Test images: labels above, the most probable classes below, {note}")
    panels = figure.subplots(3, 5)
    for row, axes in zip(_image_of_each_class(test.labels), panels.flat, strict=True):
        if row is None:
            axes.set_axis_off()
            continue
        axes.imshow(test_image(row), cmap="gray", vmin=0, vmax=255)
        names = [name for name, label in zip(CLASSES, test.labels[row], strict=True) if label == 1]
        axes.set_title(fill(", ".join(names), 32), fontsize="small", fontweight="bold")
        top = np.argsort(-test.probabilities[row], kind="stable")[:TOP_CLASSES]
        lines = [f"{CLASSES[column]} {test.probabilities[row, column]:.2f}" for column in top]
        axes.set(xticks=[], yticks=[])
        axes.set_xlabel("\n".join(lines), fontsize="small")
    _save(figure, path)


def _image_of_each_class(labels: Labels) -> list[int | None]:
    """Return the first row with each class that is not used for an earlier class; None if there is none."""
    chosen: list[int | None] = []
    for column in range(labels.shape[1]):
        candidates = [int(row) for row in np.flatnonzero(labels[:, column] == 1) if row not in chosen]
        chosen.append(candidates[0] if candidates else None)
    return chosen


def _class_grid(title: str, x: str, y: str) -> tuple[Figure, list[Axes]]:
    """Return a figure with a panel for each class; all have the axes, ticks and labels of the first.

    The margins are fixed, since a constrained layout doubles the time of a figure with many panels.
    """
    figure = Figure(figsize=(13, 8.4))
    figure.suptitle(title, y=0.985, va="top")
    figure.supxlabel(x, y=0.01, fontsize="medium")
    figure.supylabel(y, x=0.01, fontsize="medium")
    margins = {"left": 0.06, "right": 0.99, "bottom": 0.08, "top": 0.91, "hspace": 0.25, "wspace": 0.1}
    return figure, list(figure.subplots(3, 5, sharex=True, sharey=True, gridspec_kw=margins).flat)


def _unit_grid(title: str, x: str, y: str) -> tuple[Figure, list[Axes]]:
    """Return a figure with a square panel for each class, whose axes go from 0 to 1."""
    figure, panels = _class_grid(title, x, y)
    for axes in panels:
        axes.set_aspect("equal")
    ticks = [0, 0.5, 1]
    panels[0].set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=ticks, yticks=ticks)
    return figure, panels


def _plot_intervals(axes: Axes, names: list[str], intervals: Iterable[Interval]) -> None:
    """Plot a row for each name whose value is defined: the value, and its interval if that is defined."""
    rows = [
        (name, one.value, one.low, one.high)
        for name, one in zip(names, intervals, strict=True)
        if one.value is not None
    ]
    for position, (name, value, low, high) in enumerate(rows):
        margins = None if low is None or high is None else [[max(value - low, 0)], [max(high - value, 0)]]
        axes.errorbar([value], [name], xerr=margins, fmt="o", color="tab:blue", capsize=3)
        axes.annotate(f"{value:.3f}", (value, position), (0, 4), textcoords="offset points", fontsize="x-small")
    axes.margins(y=0.05)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=80, metadata={"Software": None})
