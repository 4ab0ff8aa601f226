"""Compare the AUROC of two revisions or predictions and test the difference for significance.

    python -m tools.compare                    HEAD with the workspace
    python -m tools.compare main~1             an older commit with the workspace
    python -m tools.compare main rabic-kail    a branch with a DVC experiment
    python -m tools.compare ours theirs        two folders that tools.evaluate wrote
    python -m tools.compare a.csv b.csv --labels DATA

A and B are commits, branches, tags, names of DVC experiments, `workspace`, folders that `tools.evaluate` wrote, or CSV
tables of probabilities as it reads them, with the labels of --labels or of the other side. Predictions and labels of a
revision are read from the workspace, the DVC cache or a remote; nothing is trained and no file in the workspace is
changed. Only images in both test sets are compared. 95 % intervals and p-values are from a paired bootstrap over
patients; the p-values of the 15 classes are also corrected for multiple comparisons (Holm).

The result applies to two trained ensembles, not to two training recipes: training with another seed gives a different
model. To compare recipes, train each with several seeds.
"""

import cxr.core.cpu  # noqa: F401 (must precede the import of numerical libraries)

# isort: split
import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cxr.core.errors import InputError, run_as_script, warn
from cxr.core.labels import CLASSES, UNKNOWN, label_matrix
from cxr.evaluation.bootstrap import (
    ALPHA,
    BootstrapDistribution,
    BootstrapSamples,
    bootstrap_patients,
    difference,
    holm,
)
from cxr.evaluation.class_values import MEANS, with_means
from cxr.evaluation.metrics import Labels, positives
from cxr.evaluation.ranking import auroc_and_average_precision
from tools.evaluate.labels import read_labels
from tools.evaluate.test_sets import read_pair
from tools.output_file import check_output_file, output_file
from tools.revisions import WORKSPACE, TestSet, shared_images

SEED = 1
BOOTSTRAP_SAMPLES = 2000
# With fewer samples, no p-value can be 0.05 or less after Holm's correction over 15 classes: 15 / (1 + 299) = 0.05.
MIN_BOOTSTRAP_SAMPLES = 299


@dataclass(frozen=True)
class Comparison:
    """Differences, B − A, on the images in both test sets.

    Attributes:
        table: a row for mean_15, mean_14 and each class: positives, a, b, difference, low, high, p_value, p_holm; nan
            if undefined.
        images: number of shared test images.
        patients: number of their patients.
        bootstrap_samples: number of bootstrap samples of patients.
    """

    table: pd.DataFrame
    images: int
    patients: int
    bootstrap_samples: int


def compare(a: TestSet, b: TestSet, bootstrap_samples: int) -> Comparison:
    """Compare two test sets of the same images, with the labels and patients of B.

    Classes that one side does not predict have no AUROC on either side.
    """
    is_missing = a.images[list(CLASSES)].isna().to_numpy() | b.images[list(CLASSES)].isna().to_numpy()
    labels = np.where(is_missing, np.uint8(UNKNOWN), label_matrix(b.labels))
    samples = bootstrap_patients(b.images["patient"], bootstrap_samples, SEED)
    auroc_a, auroc_b = (_auroc(test_set, labels, samples) for test_set in (a, b))
    differences = difference(auroc_a, auroc_b)
    undefined = np.full(len(MEANS), np.nan)
    columns = {
        "positives": np.append(undefined, positives(labels)),
        "a": auroc_a.value,
        "b": auroc_b.value,
        "difference": differences.value,
        "low": differences.low,
        "high": differences.high,
        "p_value": differences.p_value,
        "p_holm": np.append(undefined, holm(differences.p_value[len(MEANS) :])),
    }
    table = pd.DataFrame(columns, index=pd.Index([*MEANS, *CLASSES], name="auroc"))
    return Comparison(table, len(labels), samples.counts.shape[1], bootstrap_samples)


def _auroc(test_set: TestSet, labels: Labels, samples: BootstrapSamples) -> BootstrapDistribution:
    """Return the AUROC of the means, then of the classes."""
    classes, _ = auroc_and_average_precision(labels, test_set.images[list(CLASSES)].to_numpy(), samples)
    return with_means(classes)


def verdict(comparison: Comparison) -> str:
    """Return `better`, `worse` or `not significant`: B compared with A, by the mean AUROC over the 15 classes."""
    mean = comparison.table.loc["mean_15"]
    if not mean["p_value"] <= ALPHA:
        return "not significant"
    return "better" if mean["difference"] > 0 else "worse"


def conclusion(comparison: Comparison, a: TestSet, b: TestSet) -> str:
    """Return a sentence with the verdict, the difference and its interval."""
    if a.images.equals(b.images):
        return f"{a.name} and {b.name} have identical predictions."
    mean = comparison.table.loc["mean_15"]
    values = (
        f"mean AUROC {mean['difference']:+.3f} [{mean['low']:+.3f}, {mean['high']:+.3f}], p = {mean['p_value']:.4f}"
    )
    result = verdict(comparison)
    if result == "not significant":
        return f"No significant difference between {a.name} and {b.name}: {values}."
    return f"{b.name} is significantly {result} than {a.name}: {values}."


def print_comparison(comparison: Comparison, a: TestSet, b: TestSet) -> None:
    """Print the table and the conclusion; warn of classes without an AUROC."""
    table = comparison.table
    undefined = [str(name) for name in table.index[table["a"].isna()] if name not in MEANS]
    if undefined:
        warn(
            f"no AUROC for lack of positives, negatives or predictions: {', '.join(undefined)}; excluded from the means"
        )
    print(f"A: {a}\nB: {b}")
    print(
        f"AUROC on {comparison.images:,} shared test images of {comparison.patients:,} patients, "
        f"{comparison.bootstrap_samples:,} bootstrap samples\n"
    )
    print(f"{'':<19}{'positives':>9}{'A':>8}{'B':>8}{'B - A':>9}{'95 % interval':>19}{'p':>9}{'p (Holm)':>10}")
    for name, row in table.iterrows():
        print(_line(str(name).replace("mean_", "mean of "), row))
    print(f"\n{conclusion(comparison, a, b)}")
    print("This compares two trained ensembles; to compare training recipes, train each with several seeds.")


def _line(name: str, row: pd.Series) -> str:
    interval = f"[{row['low']:+.3f}, {row['high']:+.3f}]" if row["low"] <= row["high"] else "-"
    count = "" if np.isnan(row["positives"]) else f"{row['positives']:,.0f}"
    holm_cell = "" if name.startswith("mean of") else _cell(row["p_holm"], 10, ".4f")
    return (
        f"{name:<19}{count:>9}{_cell(row['a'], 8, '.3f')}{_cell(row['b'], 8, '.3f')}"
        f"{_cell(row['difference'], 9, '+.3f')}{interval:>19}{_cell(row['p_value'], 9, '.4f')}{holm_cell}"
    )


def _cell(value: float, width: int, form: str) -> str:
    return f"{'-' if np.isnan(value) else format(value, form):>{width}}"


def as_json(comparison: Comparison, a: TestSet, b: TestSet) -> dict[str, Any]:
    """Return the comparison in full precision, for JSON; undefined numbers are None."""
    rows = {
        name: {key: None if np.isnan(value) else value for key, value in row.items()}
        for name, row in comparison.table.to_dict("index").items()
    }
    return {
        "a": {"revision": a.name, "commit": a.commit},
        "b": {"revision": b.name, "commit": b.commit},
        "images": comparison.images,
        "patients": comparison.patients,
        "bootstrap_samples": comparison.bootstrap_samples,
        "verdict": verdict(comparison),
        "conclusion": conclusion(comparison, a, b),
        "auroc": rows,
    }


def plot_differences(comparison: Comparison, a: TestSet, b: TestSet, path: Path) -> None:
    """Write a PNG of the differences with their intervals, one row for each class."""
    table = comparison.table.iloc[::-1]
    figure = Figure(figsize=(8, 6), layout="constrained")
    axes = figure.subplots()
    names = [str(name).replace("mean_", "mean of ") for name in table.index]
    margin = table["high"] - table["difference"]
    axes.errorbar(table["difference"], range(len(table)), xerr=margin, fmt="o", color="tab:blue", capsize=3)
    axes.axvline(0, color="0.4", linestyle="--", linewidth=0.8)
    axes.set_yticks(range(len(table)), names)
    axes.set_xlabel(f"AUROC of {b} − AUROC of {a}, 95 % intervals")
    axes.set_title(fill(conclusion(comparison, a, b), 80), fontsize="medium")
    with output_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100, metadata={"Software": None})


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    parser = argparse.ArgumentParser(
        "python -m tools.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("a", nargs="?", default="HEAD", metavar="A", help="the baseline (default: HEAD)")
    parser.add_argument(
        "b", nargs="?", default=WORKSPACE, metavar="B", help=f"what to compare with it (default: {WORKSPACE})"
    )
    parser.add_argument("--labels", type=Path, metavar="DATA", help="labels of CSV tables, as for tools.evaluate")
    parser.add_argument(
        "--bootstrap-samples",
        type=int,
        default=BOOTSTRAP_SAMPLES,
        metavar="N",
        help=f"bootstrap samples of patients, {MIN_BOOTSTRAP_SAMPLES} or more (default: {BOOTSTRAP_SAMPLES})",
    )
    parser.add_argument("--json", action="store_true", help="print JSON in full precision instead of the table")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="write a plot of the differences")
    return parser


def check(args: argparse.Namespace) -> None:
    """Check the arguments.

    Raises:
        InputError: if there are too few bootstrap samples, or the plot is not a PNG or cannot be written.
    """
    if args.bootstrap_samples < MIN_BOOTSTRAP_SAMPLES:
        raise InputError(
            f"--bootstrap-samples {args.bootstrap_samples}: use {MIN_BOOTSTRAP_SAMPLES} or more; with fewer, no class "
            "can have a significant difference"
        )
    if args.plot and args.plot.suffix.lower() != ".png":
        raise InputError(f"--plot {args.plot}: only PNG is supported; use a name that ends in .png")
    if args.plot:
        check_output_file("--plot", args.plot)


def main() -> None:
    """Compare two test sets and print the result."""
    args = command_line().parse_args()
    check(args)
    a, b = shared_images(*read_pair(args.a, args.b, read_labels(args.labels) if args.labels else None))
    comparison = compare(a, b, args.bootstrap_samples)
    if args.json:
        print(json.dumps(as_json(comparison, a, b), indent=2, allow_nan=False))
    else:
        print_comparison(comparison, a, b)
    if args.plot:
        plot_differences(comparison, a, b, args.plot)


if __name__ == "__main__":
    run_as_script(main)
