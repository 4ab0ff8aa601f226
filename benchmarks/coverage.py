"""Measure the coverage of the confidence intervals, and the false positive rate of the test of a difference.

They should be near 95 % and 5 %. Labels and scores are simulated, with patients as clusters: the number of images of a
patient is geometric with mean 3.6; labels and scores are correlated within a patient, and scores between two networks.
Each value is also given for a bootstrap over images instead of patients. The true AUROC is given, and the true average
precision is computed from it by integration.

    python -m benchmarks.coverage              2,000 repetitions, 500 bootstrap samples each: 10 minutes on one core
    python -m benchmarks.coverage --quick      100 repetitions: half a minute, standard errors of 2 percentage points
    python -m benchmarks.coverage --repetitions 5000
    python -m benchmarks.coverage --proportions    intervals of a sensitivity: two minutes
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
    proportion,
)
from cxr.evaluation.ranking import auroc_and_average_precision

Floats = NDArray[np.float64]

MEAN_IMAGES_PER_PATIENT = 3.6
# Correlations: of the latent variables of labels and of scores within a patient, and of the scores of two networks.
CORRELATION_WITHIN_PATIENT = 0.5
CORRELATION_BETWEEN_NETWORKS = 0.6
PATIENTS = (1000, 200)
# Sensitivities, and numbers of patients with a positive image, whose intervals are measured.
SENSITIVITIES = (0.5, 0.8, 0.95)
POSITIVE_PATIENTS = (15, 50, 150)


@dataclass(frozen=True)
class Truth:
    """The simulated classes. Results have an additional row for the mean over them."""

    prevalence: Floats
    auroc: Floats

    @property
    def names(self) -> list[str]:
        """Names of the rows of a result."""
        return [f"{prevalence:.0%}, {area}" for prevalence, area in zip(self.prevalence, self.auroc, strict=True)] + [
            "mean"
        ]

    @property
    def separation(self) -> Floats:
        """Distance d of the mean scores of positives and negatives, normal with variance 1: AUROC = Φ(d / √2)."""
        return np.sqrt(2) * norm.ppf(self.auroc)

    def average_precision(self) -> Floats:
        """Return ∫ precision d recall over the threshold for these normal scores, float64 [classes]."""
        threshold = np.linspace(-10, 14, 20_001)[:, None]
        recall, false_positive_rate = norm.sf(threshold - self.separation), norm.sf(threshold)
        predicted_positive = self.prevalence * recall + (1 - self.prevalence) * false_positive_rate
        density = norm.pdf(threshold - self.separation)
        return np.trapezoid(self.prevalence * recall / predicted_positive * density, threshold, axis=0)


TRUTH = Truth(prevalence=np.array([0.05, 0.15, 0.05, 0.01]), auroc=np.array([0.9, 0.8, 0.7, 0.95]))


@dataclass(frozen=True)
class SimulatedTestSet:
    """A test set with the scores of two equally good networks.

    Attributes:
        labels: uint8 [images, classes].
        first: scores of the first network, float64 [images, classes].
        second: scores of the second network.
        patient: int [images].
    """

    labels: NDArray[np.uint8]
    first: Floats
    second: Floats
    patient: NDArray[np.intp]


def simulate(truth: Truth, patients: int, random: Generator) -> SimulatedTestSet:
    """Return a random test set. Labels threshold a normal latent variable; scores are normal given the label."""
    patient = np.repeat(np.arange(patients), random.geometric(1 / MEAN_IMAGES_PER_PATIENT, patients))
    shape = (len(patient), len(truth.auroc))

    def noise() -> Floats:
        of_patient = random.normal(size=(patients, shape[1]))[patient]
        return _blend(of_patient, random.normal(size=shape), CORRELATION_WITHIN_PATIENT)

    labels = (noise() > norm.isf(truth.prevalence)).astype(np.uint8)
    common = noise()
    first, second = (
        truth.separation * labels + _blend(common, noise(), CORRELATION_BETWEEN_NETWORKS) for _network in range(2)
    )
    return SimulatedTestSet(labels, first, second, patient)


def _blend(common: Floats, own: Floats, correlation: float) -> Floats:
    """Return a sum with variance 1, of which the fraction `correlation` is from `common`."""
    return np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own


@dataclass(frozen=True)
class Outcome:
    """Results of one test set, each [classes + 1] with the mean last; nan if an interval or p-value is undefined."""

    auroc_covered: Floats
    auroc_width: Floats
    average_precision_covered: Floats
    is_significant: Floats

    @classmethod
    def of(cls, test: SimulatedTestSet, truth: Truth, patient: NDArray[np.intp], samples: int, seed: int) -> Self:
        """Evaluate `test` with a bootstrap over the clusters `patient`."""
        bootstrap = bootstrap_patients(patient, samples, seed)
        metrics = auroc_and_average_precision(test.labels, test.first, bootstrap)
        auroc, precision = (_with_mean(metric) for metric in metrics)
        other = _with_mean(auroc_and_average_precision(test.labels, test.second, bootstrap)[0])
        intervals, p_value = auroc.interval(), difference(auroc, other).p_value
        return cls(
            _covered(intervals, truth.auroc),
            np.diff(intervals)[:, 0],
            _covered(precision.interval(), truth.average_precision()),
            np.where(np.isnan(p_value), np.nan, p_value <= ALPHA),
        )


def _with_mean(metric: BootstrapDistribution) -> BootstrapDistribution:
    return concatenate(metric, metric.mean(range(len(metric.value))))


def _covered(intervals: Floats, truth: Floats) -> Floats:
    low, high = intervals.T
    inside = (low <= np.append(truth, truth.mean())) & (np.append(truth, truth.mean()) <= high)
    return np.where(np.isnan(low), np.nan, inside)


def repeat(patients: int, repetitions: int, samples: int) -> pd.DataFrame:
    """Simulate and evaluate `repetitions` test sets, with the seeds 0, 1, 2, ….

    Returns:
        A row for each class and for the mean, with means over the test sets in which a value is defined: positive
        patients, and the fields of `Outcome`, by patients and, with the suffix `_by_images`, by images; n is the number
        of test sets with an interval of AUROC.
    """
    by_patients, by_images, positive = [], [], []
    for seed in range(repetitions):
        test = simulate(TRUTH, patients, np.random.default_rng(seed))
        by_patients.append(Outcome.of(test, TRUTH, test.patient, samples, seed))
        by_images.append(Outcome.of(test, TRUTH, np.arange(len(test.patient)), samples, seed))
        positive.append([len(set(test.patient[label > 0])) for label in test.labels.T] + [np.nan])
    table = pd.DataFrame({"positive_patients": np.mean(positive, axis=0)}, index=pd.Index(TRUTH.names, name="class"))
    for suffix, outcomes in (("", by_patients), ("_by_images", by_images)):
        for field in fields(Outcome):
            table[field.name + suffix] = _column_means([getattr(outcome, field.name) for outcome in outcomes])
    return table.assign(n=np.sum([~np.isnan(outcome.auroc_width) for outcome in by_patients], axis=0))


def _column_means(rows: Iterable[Floats]) -> NDArray[np.float64]:
    """Return the means of the columns, without nan."""
    return pd.DataFrame(list(rows)).mean().to_numpy()


def print_results(table: pd.DataFrame, patients: int, repetitions: int, samples: int) -> None:
    """Print the results of one scenario: widths as they are, all else in percent; by images in brackets."""
    print(
        f"\n{patients:,} patients, {patients * MEAN_IMAGES_PER_PATIENT:,.0f} images, {samples:,} bootstrap samples, "
        f"{repetitions:,} repetitions; in brackets: bootstrap over images instead of patients"
    )
    heads = ("positive", "coverage of", "mean width", "coverage of", "false positives")
    print(f"{'prevalence,':<12}" + "".join(f"{head:>17}" for head in heads))
    heads = ("patients", "AUROC, %", "for AUROC", "AP, %", "at 0.05, %")
    print(f"{'AUROC':<12}" + "".join(f"{head:>17}" for head in heads) + f"{'n':>7}")
    for name, row in table.iterrows():
        cells = [f"{row['positive_patients']:.0f}" if row["positive_patients"] > 0 else ""]
        for field, scale in zip(fields(Outcome), (100, 1, 100, 100), strict=True):
            digits = 1 if scale == 100 else 3
            value, by_images = scale * row[field.name], scale * row[f"{field.name}_by_images"]
            cells.append(f"{value:.{digits}f} ({by_images:.{digits}f})")
        print(f"{name:<12}" + "".join(f"{cell:>17}" for cell in cells) + f"{row['n']:>7.0f}")


@dataclass(frozen=True)
class ProportionCoverage:
    """Fractions of the repetitions: intervals that cover the truth, that the bootstrap alone gives, and their width."""

    covered: float
    bootstrap_defined: float
    width: float


def cover_proportion(true: float, patients: int, repetitions: int, samples: int) -> ProportionCoverage:
    """Simulate the positive images of `patients`, each detected with the probability `true`, and evaluate intervals.

    Detections threshold a normal latent variable that is correlated within a patient.
    """
    rows = []
    for seed in range(repetitions):
        random = np.random.default_rng(seed)
        patient = np.repeat(np.arange(patients), random.geometric(1 / MEAN_IMAGES_PER_PATIENT, patients))
        latent = _blend(
            random.normal(size=patients)[patient], random.normal(size=len(patient)), CORRELATION_WITHIN_PATIENT
        )
        detected = (latent < norm.ppf(true))[:, None]
        found = proportion(detected, np.ones_like(detected), bootstrap_patients(patient, samples, seed))
        low, high = found.interval()[0]
        by_bootstrap = BootstrapDistribution(found.value, found.samples, found.dof).interval()[0]
        rows.append((low <= true <= high, not np.isnan(by_bootstrap[0]), high - low))
    return ProportionCoverage(*np.mean(rows, axis=0))


def print_proportions(repetitions: int, samples: int) -> None:
    """Print the coverage of the intervals of a sensitivity, in percent."""
    print(f"{'sensitivity':<14}{'patients':>9}{'coverage':>10}{'by bootstrap':>14}{'mean width':>12}")
    for true in SENSITIVITIES:
        for patients in POSITIVE_PATIENTS:
            found = cover_proportion(true, patients, repetitions, samples)
            share, covered = 100 * found.bootstrap_defined, 100 * found.covered
            print(f"{true:<14}{patients:>9}{covered:>10.1f}{share:>14.1f}{found.width:>12.3f}")


def main() -> None:
    """Run the simulation for each number of patients."""
    parser = argparse.ArgumentParser("python -m benchmarks.coverage", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--repetitions", type=int, default=2000, help="simulated test sets (default: 2000)")
    parser.add_argument("--bootstrap-samples", type=int, default=500, help="bootstrap samples of each (default: 500)")
    parser.add_argument("--quick", action="store_true", help="100 repetitions")
    parser.add_argument("--proportions", action="store_true", help="the intervals of a sensitivity instead")
    args = parser.parse_args()
    repetitions = 100 if args.quick else args.repetitions
    if repetitions < 1 or args.bootstrap_samples < 19:
        raise InputError("--repetitions must be at least 1, and --bootstrap-samples at least 19")
    if args.proportions:
        print_proportions(repetitions, args.bootstrap_samples)
        return
    for patients in PATIENTS:
        results = repeat(patients, repetitions, args.bootstrap_samples)
        print_results(results, patients, repetitions, args.bootstrap_samples)


if __name__ == "__main__":
    run_as_script(main)
