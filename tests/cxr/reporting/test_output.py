from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr.core.labels import CLASSES
from cxr.reporting.output import write_plots
from cxr.reporting.plots import file_name, write_tables
from cxr.reporting.report import render
from tests.fixtures.reported import WITHOUT_POSITIVES, make_run
from tests.fixtures.stages import files_in

PNGS = ("roc", "precision_recall", "classes", "subgroups", "reliability", "confusion", "training", "sample_images")


@pytest.mark.slow  # drawing all plots takes seconds
def test_plots_are_tables_images_and_the_report_with_the_same_bytes_for_the_same_run(tmp_path: Path) -> None:
    for folder in (tmp_path / "first", tmp_path / "second"):
        write_plots(make_run(), lambda row: np.full((8, 8), row, np.uint8), folder)
    curves = {f"{kind}/{file_name(name)}.csv" for kind in ("roc", "precision_recall") for name in CLASSES}
    tables = {"training.csv", "classes.csv", "confusion.csv"}
    assert files_in(tmp_path / "first") == curves | tables | {f"{name}.png" for name in PNGS} | {"report.html"}
    for name in files_in(tmp_path / "first"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name
    assert (tmp_path / "first/report.html").read_text(encoding="utf-8") == render(make_run())


def test_tables_have_the_metrics_of_each_class(tmp_path: Path) -> None:
    run = make_run()
    write_tables(run, tmp_path)
    table = pd.read_csv(tmp_path / "classes.csv", index_col="class")
    confusion = pd.read_csv(tmp_path / "confusion.csv")
    assert list(table.index) == list(CLASSES)
    assert table["auroc"].isna()[WITHOUT_POSITIVES]
    for name, metrics in run.metrics.classes.classes.items():
        assert table.loc[name, "positives"] == metrics.positives
        rows = confusion[confusion["class"] == name].set_index(["actual", "predicted"])["images"]
        assert rows[1, 1] == metrics.true_positives
        assert rows[0, 1] == metrics.false_positives
