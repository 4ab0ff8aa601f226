"""What the study found: figures of each change, and benchmarks/STUDY.md."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.study_changes import BASELINE, CONTROL, Change, Values, described
from cxr.core.files import atomic_write
from cxr.core.tables import label_matrix
from cxr.evaluation.bootstrap import (
    ALPHA,
    BootstrapDistribution,
    BootstrapSamples,
    auroc_and_average_precision,
    bootstrap_patients,
    concatenate,
    difference,
    holm,
)
from cxr.evaluation.metrics import Labels
from cxr.evaluation.summary import MEANS, with_means

FOLDS = 3
BOOTSTRAP_SEED = 1


class Trained(NamedTuple):
    """What is known of one training."""

    seconds: float
    best_epoch: int
    device: str
    libraries: dict[str, str]
    code: str  # fingerprint of the code that trained it


class Result(NamedTuple):
    """A change that has been run to its end."""

    change: Change
    probabilities: NDArray[np.float64]  # out of fold, [images, 15]
    trained: list[Trained]  # of each of its networks in each fold


@dataclass(frozen=True)
class Found:
    """All that STUDY.md says.

    Attributes:
        values: the baseline's parameters.
        images: the table of all images, a row an image.
        results: what has been run, the baseline first.
        missing: what has not been run.
        figures: from `measure`.
    """

    values: Values
    images: pd.DataFrame
    results: list[Result]
    missing: list[Change]
    figures: pd.DataFrame


def auroc_over_folds(
    labels: Labels, probabilities: NDArray[np.float64], folds: NDArray[np.int64], drawn: BootstrapSamples
) -> BootstrapDistribution:
    """Each class's AUROC within each fold, averaged over the folds.

    To pool the folds' probabilities would rank images of one network among those of another, and the networks are not
    calibrated alike: a pooled AUROC would also measure that, and blame it on the change. Patients are drawn over all
    folds, as they are for one test set. A class that a fold has no positives of is averaged over the others. The folds
    share no patient, so the degrees of freedom of the mean of independent parts hold (`Bootstrapped.mean`): between
    the least of a fold's and the sum of all.

    Args:
        labels: uint8 [images, classes].
        probabilities: out of fold, [images, classes].
        folds: of each image, int [images].
        drawn: resamples of the same images.
    """
    parts = [folds == fold for fold in np.unique(folds)]
    classes = labels.shape[1]
    by_fold = concatenate(
        *(auroc_and_average_precision(labels[part], probabilities[part], drawn.of(part))[0] for part in parts)
    )
    columns = range(len(by_fold.value))
    return concatenate(*(by_fold.mean(columns[label::classes]) for label in range(classes)))


def measure(results: Sequence[Result], images: pd.DataFrame, folds: NDArray[np.int64], resamples: int) -> pd.DataFrame:
    """The figures of each change, by falling difference to the baseline, which is the first of `results`.

    Returns:
        A row a change: mean_15 and mean_14 (AUROC), each with _low and _high; difference of mean_15 to the baseline,
        with low, high, p_value and p_holm (over all rows), nan for the baseline itself; networks, minutes (of one
        network, its folds summed), best_epoch (median over networks and folds).
    """
    labels, drawn = label_matrix(images), bootstrap_patients(images["patient"], resamples, BOOTSTRAP_SEED)
    areas = [with_means(auroc_over_folds(labels, result.probabilities, folds, drawn)) for result in results]
    rows = [_figures(result, area, areas[0]) for result, area in zip(results, areas, strict=True)]
    table = pd.DataFrame(rows, index=pd.Index([result.change.name for result in results], name="change"))
    table["p_holm"] = holm(table["p_value"].to_numpy())
    return table.sort_values("difference", ascending=False, kind="stable")


def _figures(result: Result, area: BootstrapDistribution, baseline: BootstrapDistribution) -> dict[str, float]:
    row: dict[str, float] = {}
    for name, value, (low, high) in zip(MEANS, area.value, area.interval(), strict=False):
        row |= {name: value, f"{name}_low": low, f"{name}_high": high}
    if result.change == BASELINE:
        row |= {"difference": 0.0, **dict.fromkeys(("low", "high", "p_value"), math.nan)}
    else:
        compared = difference(baseline, area)
        row |= dict(zip(("difference", "low", "high", "p_value"), (each[0] for each in compared), strict=True))
    networks = len(result.trained) // FOLDS
    return row | {
        "networks": networks,
        "minutes": sum(each.seconds for each in result.trained) / networks / 60,
        "best_epoch": median(each.best_epoch for each in result.trained),
    }


def write(found: Found, path: Path) -> None:
    """Write STUDY.md, all of it made from `found`."""
    parts = [
        "# One change at a time",
        setting(found),
        *code_warning(found.results),
        table(found.figures),
        HOW_TO_READ,
        chance(found.figures),
        *verdicts(found.figures),
        listed("Not run", [change.name for change in found.missing]),
        listed("The changes", [described(result.change) for result in found.results[1:]]),
    ]
    with atomic_write(path) as temporary:
        temporary.write_text("\n\n".join(filter(None, parts)) + "\n", encoding="utf-8")


HOW_TO_READ = f"""\
Mean AUROC of the classes within each fold, averaged over the folds, with 95 % intervals by the bootstrap over patients;
the difference is that over 15 classes, paired: the same images in the same resamples. p (Holm) is corrected for all
rows. Minutes are those of one network, its {FOLDS} folds summed; the machine may have done other work meanwhile. Best
epoch is the median over networks and folds. Each fold has one network for each model and seed, so a row speaks of these
networks on other patients like these, and not of all that its recipe could give: below is what another seed does."""


def setting(found: Found) -> str:
    """What was trained on what, where and how, in one paragraph."""
    values, images = found.values, found.images
    devices = sorted({each.device for result in found.results for each in result.trained})
    versions = found.results[0].trained[0].libraries
    return (
        f"{len(images):,} images of {images['patient'].nunique():,} patients ({Path(values['raw_dir']).name}) in "
        f"{FOLDS} folds by patient: each image is predicted once, by networks that did not see its patient; part of "
        "the patients of the other folds choose the epoch, by mean AUROC. The baseline is presets/nih-40k.yaml "
        f"(lr {values['lr']}, mixup {values['mixup_alpha']}, warm restarts, strong augmentation) with "
        f"{', '.join(values['models'])} ({values['weights']} weights) at {values['image_size']} px, batches of "
        f"{values['batch_size']}, {values['epochs']} epochs in one cosine cycle, seed "
        f"{', '.join(map(str, values['seeds']))}. Trained on {' and '.join(devices)}, {values['threads']} threads; "
        f"torch {versions['torch']}, timm {versions['timm']}. Written by `python -m benchmarks.study`."
    )


def code_warning(results: Sequence[Result]) -> list[str]:
    """Which rows were trained with other code than the baseline, if any were."""
    expected = {each.code for each in results[0].trained}
    other = [result.change.name for result in results if {each.code for each in result.trained} != expected]
    if len(expected) > 1:
        return ["**Warning:** the baseline's folds were trained with different code."]
    return [f"**Warning:** trained with other code than the baseline: {', '.join(other)}."] if other else []


def table(figures: pd.DataFrame) -> str:
    """A Markdown table with a row a change."""
    heads = (
        "change",
        "mean AUROC, 15 classes",
        "14 findings",
        "difference",
        "p",
        "p (Holm)",
        "networks",
        "minutes",
        "best epoch",
    )
    rows = [_cells(str(name), row) for name, row in figures.iterrows()]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows))


def _cells(name: str, row: "pd.Series[float]") -> list[str]:
    return [
        name,
        *(f"{row[mean]:.3f}{_interval(row[f'{mean}_low'], row[f'{mean}_high'], '.3f')}" for mean in MEANS),
        "" if name == BASELINE.name else _difference(row),
        *("" if math.isnan(row[key]) else f"{row[key]:.3f}" for key in ("p_value", "p_holm")),
        f"{row['networks']:.0f}",
        f"{row['minutes']:.1f}",
        f"{row['best_epoch']:g}",
    ]


def _interval(low: float, high: float, form: str) -> str:
    return "" if math.isnan(low) else f" [{low:{form}}, {high:{form}}]"


def _difference(row: "pd.Series[float]") -> str:
    return f"{row['difference']:+.4f}{_interval(row['low'], row['high'], '+.4f')}"


def chance(figures: pd.DataFrame) -> str:
    """What the control says: how far the figure moves where nothing of the recipe changes."""
    if CONTROL.name not in figures.index:
        return f"## Chance alone\n\nNot known: {CONTROL.name} has not been run."
    row = figures.T[CONTROL.name]
    return (
        f"## Chance alone\n\nAnother seed of the same recipe: {_difference(row)}, p (Holm) {row['p_holm']:.3f}. A "
        "change that moves the figure no further than this may be chance as well, whatever its p, and is marked so "
        "below. One other seed is a rough measure of it."
    )


def verdicts(figures: pd.DataFrame) -> list[str]:
    """What helped, what hurt, and what did nothing: by the corrected p-value and the sign of the difference."""
    changes = figures.drop([name for name in (BASELINE.name, CONTROL.name) if name in figures.index])
    told = changes["p_holm"] <= ALPHA
    sections = {
        f"What helped (p (Holm) at most {ALPHA})": changes[told & (changes["difference"] > 0)],
        f"What hurt (p (Holm) at most {ALPHA})": changes[told & (changes["difference"] < 0)][::-1],
        "What did nothing that can be told": changes[~told],
    }
    by_chance = abs(figures["difference"].get(CONTROL.name, 0.0))
    return [
        listed(head, [_verdict(str(name), row, by_chance) for name, row in rows.iterrows()] or ["No change."])
        for head, rows in sections.items()
    ]


def _verdict(name: str, row: "pd.Series[float]", by_chance: float) -> str:
    mark = "; no further than another seed" if row["p_holm"] <= ALPHA and abs(row["difference"]) <= by_chance else ""
    return f"{name}: {_difference(row)}{mark}"


def listed(head: str, lines: Sequence[str]) -> str:
    """A section of bullets; nothing where there are none."""
    return f"## {head}\n\n" + "\n".join(f"- {line}" for line in lines) if lines else ""
