"""How often the intervals of `cxr/evaluation/bootstrap.py` cover the truth, and how often two equals are told apart.

Both should be near their level: 95 and 5 times in 100. Labels and scores are simulated, with patients as clusters: a
geometric number of images a patient, 3.6 in the mean; a patient's labels resemble each other, and so do the scores of
its images and those of two networks. Beside each figure stands what it would be if images were resampled instead of
patients. The true AUROC is chosen, and the true average precision follows from it by an integral.

    python -m benchmarks.coverage              2,000 repetitions, 500 resamples each: 10 minutes on one core
    python -m benchmarks.coverage --quick      100 repetitions: half a minute, and standard errors of 2 in 100
    python -m benchmarks.coverage --repetitions 5000
"""

import argparse
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import pandas as pd
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.stats import norm

from cxr.core.errors import InputError, run_as_script
from cxr.evaluation.bootstrap import (
    ALPHA,
    BootstrapDistribution,
    bootstrap_patients,
    concatenate,
    difference,
)
from cxr.evaluation.ranking import auroc_and_average_precision

Floats = NDArray[np.float64]

IMAGES_A_PATIENT = 3.6
# Shares of the variance: of a label's and of a score's cause within a patient, and of the two networks' scores.
ALIKE_WITHIN_PATIENT = 0.5
ALIKE_BETWEEN_NETWORKS = 0.6
PATIENTS = (1000, 200)


@dataclass(frozen=True)
class Truth:
    """The simulated classes; the mean over them is a class of its own in the results."""

    prevalence: Floats
    auroc: Floats

    @property
    def names(self) -> list[str]:
        """What the rows of a result are called."""
        return [f"{share:.0%}, {area}" for share, area in zip(self.prevalence, self.auroc, strict=True)] + ["mean"]

    @property
    def separation(self) -> Floats:
        """How far positives lie above negatives, whose scores are normal with variance 1: AUROC = Φ(d / √2)."""
        return np.sqrt(2) * norm.ppf(self.auroc)

    def average_precision(self) -> Floats:
        """∫ precision d recall over the threshold, of the same normal scores: float [classes]."""
        threshold = np.linspace(-10, 14, 20_001)[:, None]
        recall, false_positive_rate = norm.sf(threshold - self.separation), norm.sf(threshold)
        called = self.prevalence * recall + (1 - self.prevalence) * false_positive_rate
        density = norm.pdf(threshold - self.separation)
        return np.trapezoid(self.prevalence * recall / called * density, threshold, axis=0)


TRUTH = Truth(prevalence=np.array([0.05, 0.15, 0.05, 0.01]), auroc=np.array([0.9, 0.8, 0.7, 0.95]))


@dataclass(frozen=True)
class Study:
    """One simulated test set: labels uint8 [images, classes], scores of two equally good networks, patients."""

    labels: NDArray[np.uint8]
    first: Floats
    second: Floats
    patient: NDArray[np.intp]


def simulate(truth: Truth, patients: int, random: Generator) -> Study:
    """Draw a test set. Labels by a threshold on a normal cause, scores normal around a label's mean."""
    patient = np.repeat(np.arange(patients), random.geometric(1 / IMAGES_A_PATIENT, patients))
    shape = (len(patient), len(truth.auroc))

    def noise() -> Floats:
        of_patient = random.normal(size=(patients, shape[1]))[patient]
        return _blend(of_patient, random.normal(size=shape), ALIKE_WITHIN_PATIENT)

    labels = (noise() > norm.isf(truth.prevalence)).astype(np.uint8)
    common = noise()
    first, second = (
        truth.separation * labels + _blend(common, noise(), ALIKE_BETWEEN_NETWORKS) for _network in range(2)
    )
    return Study(labels, first, second, patient)


def _blend(common: Floats, own: Floats, share: float) -> Floats:
    """A sum with variance 1, of which `share` is common."""
    return np.sqrt(share) * common + np.sqrt(1 - share) * own


@dataclass(frozen=True)
class Outcome:
    """What one study found, each [classes + 1], the mean last; nan where there is no interval or no p-value."""

    auroc_covered: Floats
    auroc_width: Floats
    average_precision_covered: Floats
    called_different: Floats

    @classmethod
    def of(cls, study: Study, truth: Truth, patient: NDArray[np.intp], resamples: int, seed: int) -> Self:
        """Measure `study` as if its images were clustered by `patient`."""
        drawn = bootstrap_patients(patient, resamples, seed)
        measures = auroc_and_average_precision(study.labels, study.first, drawn)
        auroc, precision = (_with_mean(measure) for measure in measures)
        other = _with_mean(auroc_and_average_precision(study.labels, study.second, drawn)[0])
        intervals, p_value = auroc.interval(), difference(auroc, other).p_value
        return cls(
            _covered(intervals, truth.auroc),
            np.diff(intervals)[:, 0],
            _covered(precision.interval(), truth.average_precision()),
            np.where(np.isnan(p_value), np.nan, p_value <= ALPHA),
        )


def _with_mean(measure: BootstrapDistribution) -> BootstrapDistribution:
    return concatenate(measure, measure.mean(range(len(measure.value))))


def _covered(intervals: Floats, truth: Floats) -> Floats:
    low, high = intervals.T
    inside = (low <= np.append(truth, truth.mean())) & (np.append(truth, truth.mean()) <= high)
    return np.where(np.isnan(low), np.nan, inside)


def repeat(patients: int, repetitions: int, resamples: int) -> pd.DataFrame:
    """Simulate and measure `repetitions` studies; the seed of each is its number.

    Returns:
        A row for each class and the mean, of means over the studies that have the figure: positive patients, and each
        of `Outcome` by patients and `_by_images`; n is how many studies have an AUROC's interval.
    """
    by_patients, by_images, positive = [], [], []
    for seed in range(repetitions):
        study = simulate(TRUTH, patients, np.random.default_rng(seed))
        by_patients.append(Outcome.of(study, TRUTH, study.patient, resamples, seed))
        by_images.append(Outcome.of(study, TRUTH, np.arange(len(study.patient)), resamples, seed))
        positive.append([len(set(study.patient[label > 0])) for label in study.labels.T] + [np.nan])
    table = pd.DataFrame({"positive_patients": np.mean(positive, axis=0)}, index=pd.Index(TRUTH.names, name="class"))
    for suffix, outcomes in (("", by_patients), ("_by_images", by_images)):
        for field in fields(Outcome):
            table[field.name + suffix] = _column_means([getattr(outcome, field.name) for outcome in outcomes])
    return table.assign(n=np.sum([~np.isnan(outcome.auroc_width) for outcome in by_patients], axis=0))


def _column_means(rows: Iterable[Floats]) -> NDArray[np.float64]:
    """Means of the columns, over what is not nan."""
    return pd.DataFrame(list(rows)).mean().to_numpy()


def report(table: pd.DataFrame, patients: int, repetitions: int, resamples: int) -> None:
    """Print one scenario's figures, in percent but for the widths; images resampled in brackets."""
    print(
        f"\n{patients:,} patients, {patients * IMAGES_A_PATIENT:,.0f} images, {resamples:,} resamples, "
        f"{repetitions:,} repetitions; in brackets: images resampled instead of patients"
    )
    heads = ("positive", "95 % interval", "mean width", "95 % interval", "equals told")
    print(f"{'prevalence,':<12}" + "".join(f"{head:>17}" for head in heads))
    heads = ("patients", "covers AUROC", "for AUROC", "covers AP", "apart at 0.05")
    print(f"{'AUROC':<12}" + "".join(f"{head:>17}" for head in heads) + f"{'n':>7}")
    for name, row in table.iterrows():
        cells = [f"{row['positive_patients']:.0f}" if row["positive_patients"] > 0 else ""]
        for field, scale in zip(fields(Outcome), (100, 1, 100, 100), strict=True):
            digits = 1 if scale == 100 else 3
            value, by_images = scale * row[field.name], scale * row[f"{field.name}_by_images"]
            cells.append(f"{value:.{digits}f} ({by_images:.{digits}f})")
        print(f"{name:<12}" + "".join(f"{cell:>17}" for cell in cells) + f"{row['n']:>7.0f}")


def main() -> None:
    """Measure each number of patients in turn."""
    parser = argparse.ArgumentParser("python -m benchmarks.coverage", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--repetitions", type=int, default=2000, help="simulated studies (default: 2000)")
    parser.add_argument("--resamples", type=int, default=500, help="resamples in each (default: 500)")
    parser.add_argument("--quick", action="store_true", help="100 repetitions")
    asked = parser.parse_args()
    repetitions = 100 if asked.quick else asked.repetitions
    if repetitions < 1 or asked.resamples < 19:
        raise InputError("at least 1 repetition and 19 resamples")
    for patients in PATIENTS:
        report(repeat(patients, repetitions, asked.resamples), patients, repetitions, asked.resamples)


if __name__ == "__main__":
    run_as_script(main)
