"""Compare two revisions: is the difference of their AUROC more than noise?

    python -m tools.compare                    HEAD with the workspace
    python -m tools.compare main~1             an older commit with the workspace
    python -m tools.compare main rabic-kail    a branch with a DVC experiment

A and B are commits, branches, tags, names of DVC experiments, or `workspace`. Their predictions and labels are read as
DVC tracks them, from its cache or a remote; nothing is trained and no file of yours is touched. Both are measured on
the images that both have in test. Intervals (95 %) and p-values come from a paired bootstrap over patients; the
p-values of the 15 classes are also corrected for being 15 (Holm).

It speaks of two trained networks, not of two recipes: another seed of the same recipe gives another network. To compare
recipes, train several seeds of each.
"""

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
from cxr.core.files import atomic_write
from cxr.core.labels import CLASSES
from cxr.core.tables import label_matrix
from cxr.evaluation.bootstrap import (
    ALPHA,
    BootstrapDistribution,
    BootstrapSamples,
    auroc_and_average_precision,
    bootstrap_patients,
    difference,
    holm,
)
from cxr.evaluation.metrics import Labels, positives
from cxr.evaluation.summary import MEANS, with_means
from tools.revisions import WORKSPACE, TestSet, read_test_set, share

SEED = 1
RESAMPLES = 2000
# With fewer, no p-value could reach 0.05 once it is corrected over the classes: 15 / (1 + 299).
FEWEST_RESAMPLES = 299


@dataclass(frozen=True)
class Comparison:
    """B less A on the images that both have in test.

    Attributes:
        table: a row for mean_15, mean_14 and each class: positives, a, b, difference, low, high, p_value, p_holm; nan
            where it is undefined.
        images: how many images both have in test.
        patients: how many patients these are of.
        resamples: how often the patients were drawn.
    """

    table: pd.DataFrame
    images: int
    patients: int
    resamples: int


def compare(a: TestSet, b: TestSet, resamples: int) -> Comparison:
    """Compare two test sets of the same images, by B's labels and patients."""
    labels = label_matrix(b.labels)
    drawn = bootstrap_patients(b.images["patient"], resamples, SEED)
    first, second = (_auroc(each, labels, drawn) for each in (a, b))
    found = difference(first, second)
    nothing = np.full(len(MEANS), np.nan)
    columns = {
        "positives": np.append(nothing, positives(labels)),
        "a": first.value,
        "b": second.value,
        "difference": found.value,
        "low": found.low,
        "high": found.high,
        "p_value": found.p_value,
        "p_holm": np.append(nothing, holm(found.p_value[len(MEANS) :])),
    }
    table = pd.DataFrame(columns, index=pd.Index([*MEANS, *CLASSES], name="auroc"))
    return Comparison(table, len(labels), drawn.counts.shape[1], resamples)


def _auroc(of: TestSet, labels: Labels, drawn: BootstrapSamples) -> BootstrapDistribution:
    """The means, then the classes."""
    classes, _ = auroc_and_average_precision(labels, of.images[list(CLASSES)].to_numpy(), drawn)
    return with_means(classes)


def verdict(comparison: Comparison) -> str:
    """`better`, `worse` or `undecided`: B against A, by the mean over the 15 classes."""
    mean = comparison.table.loc["mean_15"]
    if not mean["p_value"] <= ALPHA:
        return "undecided"
    return "better" if mean["difference"] > 0 else "worse"


def sentence(comparison: Comparison, a: TestSet, b: TestSet) -> str:
    """The verdict in words, with the difference and its interval."""
    if a.images.equals(b.images):
        return f"{a.name} and {b.name} predict the same."
    mean = comparison.table.loc["mean_15"]
    figures = (
        f"mean AUROC {mean['difference']:+.3f} [{mean['low']:+.3f}, {mean['high']:+.3f}], p = {mean['p_value']:.4f}"
    )
    found = verdict(comparison)
    if found == "undecided":
        return f"No difference can be told between {a.name} and {b.name}: {figures}."
    return f"{b.name} is {found} than {a.name}: {figures}."


def report(comparison: Comparison, a: TestSet, b: TestSet) -> None:
    """Print the table, and the verdict below it."""
    table = comparison.table
    undefined = [str(name) for name in table.index[table["a"].isna()] if name not in MEANS]
    if undefined:
        warn(f"no AUROC, for want of positives or negatives: {', '.join(undefined)}; left out of the means")
    print(f"A: {a}\nB: {b}")
    print(
        f"AUROC on the {comparison.images:,} images of {comparison.patients:,} patients that both have in test; "
        f"{comparison.resamples:,} resamples of patients\n"
    )
    print(f"{'':<19}{'positives':>9}{'A':>8}{'B':>8}{'B - A':>9}{'95 % interval':>19}{'p':>9}{'p (Holm)':>10}")
    for name, row in table.iterrows():
        print(_line(str(name).replace("mean_", "mean of "), row))
    print(f"\n{sentence(comparison, a, b)}")
    print("This is about two trained networks, not two recipes; to compare recipes, train several seeds of each.")


def _line(name: str, row: pd.Series) -> str:
    def cell(value: float, width: int, form: str) -> str:
        return f"{'-' if np.isnan(value) else format(value, form):>{width}}"

    interval = f"[{row['low']:+.3f}, {row['high']:+.3f}]" if row["low"] <= row["high"] else "-"
    positives = "" if np.isnan(row["positives"]) else f"{row['positives']:,.0f}"
    holm_cell = "" if name.startswith("mean of") else cell(row["p_holm"], 10, ".4f")
    return (
        f"{name:<19}{positives:>9}{cell(row['a'], 8, '.3f')}{cell(row['b'], 8, '.3f')}"
        f"{cell(row['difference'], 9, '+.3f')}{interval:>19}{cell(row['p_value'], 9, '.4f')}{holm_cell}"
    )


def as_json(comparison: Comparison, a: TestSet, b: TestSet) -> dict[str, Any]:
    """All of it in full precision; null where there is no number."""
    rows = {
        name: {key: None if np.isnan(value) else value for key, value in row.items()}
        for name, row in comparison.table.to_dict("index").items()
    }
    return {
        "a": {"revision": a.name, "commit": a.commit},
        "b": {"revision": b.name, "commit": b.commit},
        "images": comparison.images,
        "patients": comparison.patients,
        "resamples": comparison.resamples,
        "verdict": verdict(comparison),
        "sentence": sentence(comparison, a, b),
        "auroc": rows,
    }


def draw(comparison: Comparison, a: TestSet, b: TestSet, path: Path) -> None:
    """Write a PNG of the differences with their intervals, a row a class."""
    table = comparison.table.iloc[::-1]
    figure = Figure(figsize=(8, 6), layout="constrained")
    axes = figure.subplots()
    names = [str(name).replace("mean_", "mean of ") for name in table.index]
    reach = table["high"] - table["difference"]
    axes.errorbar(table["difference"], range(len(table)), xerr=reach, fmt="o", color="tab:blue", capsize=3)
    axes.axvline(0, color="0.4", linestyle="--", linewidth=0.8)
    axes.set_yticks(range(len(table)), names)
    axes.set_xlabel(f"AUROC of {b} less that of {a}, with 95 % intervals")
    axes.set_title(fill(sentence(comparison, a, b), 80), fontsize="medium")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100, metadata={"Software": None})


def command_line() -> argparse.ArgumentParser:
    """The command's arguments; its help is this module's docstring."""
    parser = argparse.ArgumentParser(
        "python -m tools.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("a", nargs="?", default="HEAD", metavar="REV_A", help="what to compare with (default: HEAD)")
    parser.add_argument("b", nargs="?", default=WORKSPACE, metavar="REV_B", help="what is new (default: workspace)")
    parser.add_argument("--resamples", type=int, default=RESAMPLES, metavar="N", help=f"default: {RESAMPLES}")
    parser.add_argument("--json", action="store_true", help="print JSON, every digit, and no table")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the differences with their intervals")
    return parser


def check(asked: argparse.Namespace) -> None:
    """Refuse what could not be done at the end, before any work."""
    if asked.resamples < FEWEST_RESAMPLES:
        raise InputError(
            f"--resamples {asked.resamples}: with fewer than {FEWEST_RESAMPLES} no difference of a class can be told"
        )
    if asked.plot and asked.plot.suffix.lower() != ".png":
        raise InputError(f"--plot {asked.plot}: the plot is a PNG; give it a name that ends in .png")


def main() -> None:
    """Read, compare, and say it in the form that was asked for."""
    asked = command_line().parse_args()
    check(asked)
    a, b = share(read_test_set(asked.a), read_test_set(asked.b))
    comparison = compare(a, b, asked.resamples)
    if asked.json:
        print(json.dumps(as_json(comparison, a, b), indent=2, allow_nan=False))
    else:
        report(comparison, a, b)
    if asked.plot:
        draw(comparison, a, b, asked.plot)


if __name__ == "__main__":
    run_as_script(main)
