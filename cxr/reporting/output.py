"""Write the folder `plots/`: CSV tables for `dvc plots`, PNGs, and the HTML report."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.core.files import atomic_write
from cxr.core.progress import progress
from cxr.evaluation.schema import Classes
from cxr.reporting import plots
from cxr.reporting.report import Run, write_report


def write_plots(run: Run, read_image: Callable[[int], NDArray[np.uint8]], path: Path) -> None:
    """Write all plots and the report into the folder `path`.

    Args:
        run: the evaluated run.
        read_image: returns the test image at an index, uint8 [height, width].
        path: the folder, which is replaced.
    """
    labels, before, bins = run.predicted.labels, run.predicted.before, run.metrics.calibration.bins
    metrics, classes = run.metrics, class_table(run.metrics.classes)
    note = "synthetic demo images" if metrics.classes.synthetic else f"{len(labels):,} test images"
    roc = plots.roc_curves(labels, before)
    precision_recall = plots.precision_recall_curves(labels, before)
    with atomic_write(path) as folder:
        folder.mkdir()
        plots.write_curves(roc, folder / "roc")
        plots.write_curves(precision_recall, folder / "precision_recall")
        run.curves.to_csv(folder / "training.csv", index=False)
        classes[["auroc", "average_precision", "positives"]].to_csv(folder / "classes.csv")
        plots.confusion_table(classes).to_csv(folder / "confusion.csv", index=False)
        figures: dict[str, Callable[[Path], None]] = {
            "roc.png": partial(plots.draw_curves, roc, f"ROC by class, {note}"),
            "precision_recall.png": partial(
                plots.draw_curves, precision_recall, f"Precision and recall by class, {note}"
            ),
            "classes.png": partial(plots.draw_classes, classes, metrics.intervals.auroc, note),
            "subgroups.png": partial(plots.draw_subgroups, metrics.subgroups, note),
            "reliability.png": partial(plots.draw_reliability, labels, before, run.predicted.after, bins, note),
            "confusion.png": partial(plots.draw_confusion, classes, note),
            "training.png": partial(plots.draw_training, run.curves, note),
            "sample_images.png": partial(plots.draw_samples, read_image, labels, before, note),
            "report.html": partial(write_report, run),
        }
        for name, draw in progress(figures.items(), "draw", len(figures), "figures"):
            draw(folder / name)


def class_table(classes: Classes) -> pd.DataFrame:
    """Return the metrics of each class as a table, a row for each class; nan if undefined."""
    rows = [row.model_dump() for row in classes.classes.values()]
    return pd.DataFrame(rows, index=pd.Index(list(classes.classes), name="class"))
