"""Predictions and labels against radiologists' labels, compared with scikit-learn and counting."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import recall_score, roc_auc_score

from cxr.core.labels import CLASSES, UNKNOWN, label_matrix
from cxr.datasets.expert_labels import ExpertLabels, read_expert_labels
from cxr.datasets.nih import read_table
from cxr.evaluation.bootstrap import BootstrapSamples, bootstrap_patients
from cxr.evaluation.experts import evaluate_experts
from cxr.evaluation.schema import Experts

TARGETS = {"Mass": ("Mass",), "Nodule or mass": ("Nodule", "Mass")}
IMAGES = [f"{number}.png" for number in range(120)]


@pytest.fixture(scope="module")
def study() -> tuple[Any, Any, BootstrapSamples]:
    """Labels and probabilities of 120 images of 60 patients."""
    random = np.random.default_rng(1)
    labels = (random.random((120, len(CLASSES))) < 0.4).astype(np.uint8)
    probabilities = 1 / (1 + np.exp(-random.normal(labels, 1)))
    return labels, probabilities, bootstrap_patients(np.arange(120) // 2, 100, 1)


@pytest.fixture(scope="module")
def table() -> ExpertLabels:
    """Radiologists' labels of 100 of the images and of 7 others; two readers, one of half of the images."""
    random = np.random.default_rng(2)
    names = [*IMAGES[10:110][::-1], *(f"train{number}.png" for number in range(7))]
    labels = pd.DataFrame({"image": names, **{name: random.integers(0, 2, 107).astype(np.uint8) for name in TARGETS}})
    first = labels.assign(reader="1")
    second = labels.iloc[:50].assign(reader="2", Mass=np.where(np.arange(50) < 5, UNKNOWN, 1).astype(np.uint8))
    return ExpertLabels(TARGETS, labels, pd.concat([first, second]))


def compare(study: tuple[Any, Any, BootstrapSamples], table: ExpertLabels) -> Experts:
    labels, probabilities, samples = study
    return evaluate_experts({"some": table}, IMAGES, labels, probabilities, probabilities >= 0.5, samples)


def test_everything_is_measured_on_the_images_that_both_have(
    study: tuple[Any, Any, BootstrapSamples], table: ExpertLabels
) -> None:
    labels, probabilities, _ = study
    found: Any = compare(study, table).tables["some"]
    assert (found.images, found.ignored) == (100, 7)
    rows = [IMAGES.index(name) for name in table.labels["image"][:100]]
    for name, classes in TARGETS.items():
        columns = [CLASSES.index(one) for one in classes]
        truth, extracted = table.labels[name][:100], labels[rows][:, columns].max(axis=1)
        scores = probabilities[rows][:, columns].max(axis=1)
        one = found.findings[name]
        assert one.auroc.value == pytest.approx(roc_auc_score(truth, scores))
        assert one.auroc_against_labels.value == pytest.approx(roc_auc_score(extracted, scores))
        assert one.auroc_difference.value == pytest.approx(one.auroc.value - one.auroc_against_labels.value)
        for rates, predicted in ((one.network, scores >= 0.5), (one.labels, extracted)):
            assert rates.sensitivity.value == pytest.approx(recall_score(truth, predicted))
            assert rates.specificity.value == pytest.approx(recall_score(1 - truth, 1 - np.asarray(predicted, int)))
        assert one.label_agreement.value == pytest.approx((truth.to_numpy() == extracted).mean())
        assert (one.images, one.patients) == (100, 50)
        assert (one.positives, one.label_positives) == (truth.sum(), extracted.sum())


def test_a_radiologist_is_measured_on_what_this_one_has_read(
    study: tuple[Any, Any, BootstrapSamples], table: ExpertLabels
) -> None:
    readers = compare(study, table).tables["some"].findings["Mass"].readers
    assert (readers["1"].sensitivity.value, readers["1"].specificity.value) == (1, 1)
    # The exact interval of 1 has a lower bound.
    assert readers["1"].sensitivity.low is not None
    assert readers["1"].sensitivity.high == 1
    assert (readers["2"].images, readers["2"].sensitivity.value, readers["2"].specificity.value) == (45, 1, 0)


def test_unknown_labels_are_left_out_of_both_sides(
    study: tuple[Any, Any, BootstrapSamples], table: ExpertLabels
) -> None:
    labels, probabilities, samples = study
    labels = labels.copy()
    labels[:20, CLASSES.index("Mass")] = UNKNOWN
    found = evaluate_experts({"some": table}, IMAGES, labels, probabilities, probabilities >= 0.5, samples)
    findings = found.tables["some"].findings
    assert findings["Mass"].images == 90
    # A nodule makes `Nodule or mass` positive, whatever the mass is.
    nodules = int((labels[10:20, CLASSES.index("Nodule")] == 1).sum())
    assert findings["Nodule or mass"].images == 90 + nodules


def test_without_files_or_images_in_test_there_is_nothing(
    study: tuple[Any, Any, BootstrapSamples], table: ExpertLabels, tmp_path: Path
) -> None:
    labels, probabilities, samples = study
    assert read_expert_labels(tmp_path) == {}
    nothing = evaluate_experts({}, IMAGES, labels, probabilities, probabilities >= 0.5, samples)
    assert nothing == Experts(tables={})
    others = table._replace(labels=table.labels[100:])
    found = compare(study, others).tables["some"]
    assert (found.images, found.ignored, found.findings) == (0, 7, {})


@pytest.mark.real_data
def test_the_real_tables_agree_with_nihs_labels_as_published_counts_say(shared: Path) -> None:
    tables = read_expert_labels(shared / "nih-expert-labels")
    nih = read_table(shared / "nih-metadata")
    test = nih[nih["image"].isin(tables["all_findings"].labels["image"])]
    labels = label_matrix(test)
    scores = np.random.default_rng(1).random(labels.shape)
    samples = bootstrap_patients(test["patient"], 100, 1)
    found = evaluate_experts(tables, list(test["image"]), labels, scores, scores > 0.5, samples)
    one = found.tables["all_findings"]
    assert (one.images, one.ignored) == (810, 0)
    counts = {name: (row.positives, row.label_positives) for name, row in one.findings.items()}
    assert counts["Atelectasis"] == (303, 102)
    assert counts["Infiltration"] == (61, 104)
    assert counts["Emphysema"] == (7, 39)
    assert all(len(row.readers) == 5 for row in one.findings.values())
    assert found.tables["four_findings"].images + found.tables["four_findings"].ignored == 1962 + 2414
