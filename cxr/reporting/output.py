"""The contents of `plots/`."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxr.core.files import atomic_write
from cxr.core.progress import progress
from cxr.reporting import plots
from cxr.reporting.report import write_report
from cxr.reporting.run import Run


def write_plots(run: Run, test_image: Callable[[int], NDArray[np.uint8]], folder: Path) -> None:
    """Write the tables for `dvc plots`, the PNGs and the report into a new `folder`.

    Args:
        run: the results.
        test_image: returns the image in a row of `run.test`, uint8 [height, width].
        folder: replaced if it exists.
    """
    writers: dict[str, Callable[[Path], None]] = {
        "roc.png": partial(plots.plot_curves, run.curves.roc, f"ROC curves, {run.note}"),
        "precision_recall.png": partial(
            plots.plot_curves, run.curves.precision_recall, f"Precision-recall curves, {run.note}"
        ),
        "classes.png": partial(plots.plot_classes, run.metrics, run.note),
        "subgroups.png": partial(plots.plot_subgroups, run.metrics.subgroups, run.note),
        "reliability.png": partial(plots.plot_reliability, run.curves, run.note),
        "confusion.png": partial(plots.plot_confusion, run.metrics.classes, run.note),
        "training.png": partial(plots.plot_training, run.training, run.note),
        "sample_images.png": partial(plots.plot_images, test_image, run.test, run.note),
        "report.html": partial(write_report, run),
    }
    with atomic_write(folder) as temporary:
        temporary.mkdir()
        plots.write_tables(run, temporary)
        for name, write in progress(writers.items(), "plot", len(writers), "files"):
            write(temporary / name)
