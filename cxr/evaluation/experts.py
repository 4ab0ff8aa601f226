"""The ensemble and the data set's labels compared with radiologists' labels of the same test images.

The labels of NIH ChestX-ray14 were extracted from reports. Radiologists who read the images again often disagree with
them, so an AUROC against the extracted labels is not one against what is visible.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.core.labels import CLASSES, UNKNOWN
from cxr.evaluation.bootstrap import BootstrapDistribution, BootstrapSamples, difference, proportion
from cxr.evaluation.class_values import with_ci
from cxr.evaluation.metrics import Labels, Scores, label_mask
from cxr.evaluation.ranking import auroc_and_average_precision
from cxr.evaluation.schema import Difference, ExpertFinding, Experts, ExpertTable, ReaderRates, nan_to_none


class ExpertLabelTable(Protocol):
    """A table of `cxr.datasets.expert_labels.read_expert_labels`."""

    @property
    def targets(self) -> Mapping[str, tuple[str, ...]]:
        """The classes that each finding stands for."""

    @property
    def labels(self) -> pd.DataFrame:
        """Image and the agreed labels of each finding."""

    @property
    def readers(self) -> pd.DataFrame:
        """Image, reader and the labels of each radiologist."""


class _Test(NamedTuple):
    """The test images of a table; arrays are [images, 15]."""

    labels: Labels
    probabilities: Scores
    predicted: NDArray[np.bool_]
    samples: BootstrapSamples


class _Compared(NamedTuple):
    """The images of a table that are in test; all arrays are [images, findings]."""

    images: list[str]
    truth: Labels  # the radiologists' agreed labels; `UNKNOWN` where `extracted` is unknown
    extracted: Labels  # the data set's labels; `UNKNOWN` where `truth` is unknown
    scores: Scores
    predicted: NDArray[np.bool_]
    samples: BootstrapSamples


def evaluate_experts(
    tables: Mapping[str, ExpertLabelTable],
    images: Sequence[str],
    labels: Labels,
    probabilities: Scores,
    predicted_positive: NDArray[np.bool_],
    samples: BootstrapSamples,
) -> Experts:
    """Compare predictions and labels with the radiologists' labels, for each table of `read_expert_labels`.

    Of a finding that stands for several classes, the score is the highest probability, and the label and the
    prediction are positive if one of them is. Images outside of test are counted and ignored.

    Args:
        tables: the result of `cxr.datasets.expert_labels.read_expert_labels`; may be empty.
        images: names of the test images.
        labels: uint8 [images, 15], 0, 1 or `UNKNOWN`.
        probabilities: calibrated, float [images, 15].
        predicted_positive: bool [images, 15].
        samples: bootstrap samples of the test images.
    """
    row_of = {image: row for row, image in enumerate(images)}
    found = {}
    for name, table in tables.items():
        in_test = table.labels[table.labels["image"].isin(row_of)]
        rows = in_test["image"].map(row_of).to_numpy(np.int64)
        test = _Test(labels[rows], probabilities[rows], predicted_positive[rows], samples.subset(rows))
        findings = _findings(table, _compare(table, in_test, test)) if len(rows) else {}
        found[name] = ExpertTable(images=len(rows), ignored=len(table.labels) - len(rows), findings=findings)
    return Experts(tables=found)


def _compare(table: ExpertLabelTable, in_test: pd.DataFrame, test: _Test) -> _Compared:
    columns = [[CLASSES.index(name) for name in classes] for classes in table.targets.values()]
    extracted = np.stack([_any_positive(test.labels[:, of]) for of in columns], axis=1)
    truth = in_test[list(table.targets)].to_numpy(np.uint8)
    is_known = label_mask(truth) & label_mask(extracted)
    return _Compared(
        list(in_test["image"]),
        np.where(is_known, truth, np.uint8(UNKNOWN)),
        np.where(is_known, extracted, np.uint8(UNKNOWN)),
        np.stack([test.probabilities[:, of].max(axis=1) for of in columns], axis=1),
        np.stack([test.predicted[:, of].any(axis=1) for of in columns], axis=1),
        test.samples,
    )


def _any_positive(labels: Labels) -> Labels:
    """Return 1 if one of the classes is positive, else `UNKNOWN` if one is unknown, else 0; uint8 [images]."""
    return np.where((labels == 1).any(axis=1), 1, labels.max(axis=1)).astype(np.uint8)


def _findings(table: ExpertLabelTable, compared: _Compared) -> dict[str, ExpertFinding]:
    names, truth, samples = list(table.targets), compared.truth, compared.samples
    against_truth, _ = auroc_and_average_precision(truth, compared.scores, samples)
    against_labels, _ = auroc_and_average_precision(compared.extracted, compared.scores, samples)
    is_known = label_mask(truth)
    auroc, auroc_labels = with_ci(names, against_truth), with_ci(names, against_labels)
    gains = _differences(names, against_labels, against_truth)
    agreement = with_ci(names, proportion(truth == compared.extracted, is_known, samples))
    network, extracted = (_rates(names, one, truth, samples) for one in (compared.predicted, compared.extracted == 1))
    readers = dict(_reader_rates(table, compared))
    patients = samples.count_patients(is_known)
    return {
        name: ExpertFinding(
            classes=list(table.targets[name]),
            images=int(is_known[:, column].sum()),
            patients=int(patients[column]),
            positives=int((truth[:, column] == 1).sum()),
            label_positives=int((compared.extracted[:, column] == 1).sum()),
            auroc=auroc[name],
            auroc_against_labels=auroc_labels[name],
            auroc_difference=gains[name],
            network=network[name],
            labels=extracted[name],
            label_agreement=agreement[name],
            readers={reader: rates[name] for reader, rates in readers.items() if rates[name].images},
        )
        for column, name in enumerate(names)
    }


def _differences(
    names: list[str], first: BootstrapDistribution, second: BootstrapDistribution
) -> dict[str, Difference]:
    rows = zip(names, *difference(first, second), strict=True)
    return {
        name: Difference(**dict(zip(Difference.model_fields, map(nan_to_none, row), strict=True)))
        for name, *row in rows
    }


def _rates(
    names: list[str], positive: NDArray[np.bool_], truth: Labels, samples: BootstrapSamples
) -> dict[str, ReaderRates]:
    """Return sensitivity and specificity of `positive` for each finding, over the images with a known label."""
    sensitivity = with_ci(names, proportion(positive, truth == 1, samples))
    specificity = with_ci(names, proportion(~positive, truth == 0, samples))
    images = label_mask(truth).sum(axis=0)
    return {
        name: ReaderRates(images=int(count), sensitivity=sensitivity[name], specificity=specificity[name])
        for name, count in zip(names, images, strict=True)
    }


def _reader_rates(table: ExpertLabelTable, compared: _Compared) -> Iterator[tuple[str, dict[str, ReaderRates]]]:
    """Yield each radiologist and the rates on the images that this one has read and not hedged."""
    names = list(table.targets)
    row_of = {image: row for row, image in enumerate(compared.images)}
    read = table.readers[table.readers["image"].isin(row_of)]
    for reader, readings in read.groupby("reader"):
        rows = readings["image"].map(row_of).to_numpy(np.int64)
        values = readings[names].to_numpy(np.uint8)
        truth = np.where(label_mask(values), compared.truth[rows], np.uint8(UNKNOWN))
        yield str(reader), _rates(names, values == 1, truth, compared.samples.subset(rows))
