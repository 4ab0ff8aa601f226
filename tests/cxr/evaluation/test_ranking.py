"""AUROC and average precision in bootstrap samples, compared with scikit-learn and with a plain loop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from cxr.evaluation import metrics, ranking
from cxr.evaluation.bootstrap import BootstrapSamples, bootstrap_patients
from cxr.evaluation.ranking import auroc_and_average_precision
from tests.fixtures.study import make_study


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(2, 40), st.integers(0, 2))
def test_each_bootstrap_sample_is_scikit_learn_with_its_weights(seed: int, images: int, decimals: int) -> None:
    labels, scores, patients = make_study(seed, images, classes=2, decimals=decimals)
    samples = bootstrap_patients(patients, 8, seed)
    areas, precisions = auroc_and_average_precision(labels, scores, samples)
    for row, counts in enumerate(samples.counts):
        weights = counts[samples.patient]
        for column in range(labels.shape[1]):
            ours = [
                measure.value[column] if row == 0 else measure.samples[row - 1, column]
                for measure in (areas, precisions)
            ]
            truth, score = labels[:, column], scores[:, column]
            if len(set(truth[weights > 0])) < 2:
                assert np.isnan(ours).all()
            else:
                expected = [
                    function(truth, score, sample_weight=weights)
                    for function in (roc_auc_score, average_precision_score)
                ]
                np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-12)


def test_the_sample_has_the_values_of_the_other_measures() -> None:
    labels, scores, patients = make_study(1)
    areas, precisions = auroc_and_average_precision(labels, scores, bootstrap_patients(patients, 1, 0))
    np.testing.assert_allclose(areas.value, metrics.auroc(labels, scores), rtol=0, atol=1e-14)
    np.testing.assert_allclose(precisions.value, metrics.average_precision(labels, scores), rtol=0, atol=1e-14)


def test_a_bootstrap_sample_is_the_images_of_the_drawn_patients_repeated() -> None:
    labels, scores, patients = make_study(2)
    samples = bootstrap_patients(patients, 30, seed=5)
    areas, precisions = auroc_and_average_precision(labels, scores, samples)
    names, random = np.unique(patients), np.random.default_rng(5)
    for row in range(30):
        drawn = names[random.integers(len(names), size=len(names))]
        images = np.concatenate([np.flatnonzero(patients == patient) for patient in drawn])
        np.testing.assert_allclose(areas.samples[row], metrics.auroc(labels[images], scores[images]), atol=1e-12)
        expected = metrics.average_precision(labels[images], scores[images])
        np.testing.assert_allclose(precisions.samples[row], expected, atol=1e-12)


def test_handling_a_few_samples_at_once_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, scores, patients = make_study(3)
    samples = bootstrap_patients(patients, 50, seed=1)
    whole, _ = auroc_and_average_precision(labels, scores, samples)
    monkeypatch.setattr(ranking, "CHUNK_VALUES", 7 * len(labels))
    parts, _ = auroc_and_average_precision(labels, scores, samples)
    np.testing.assert_array_equal(whole.samples, parts.samples)


def test_some_images_keep_the_draws_of_their_patients() -> None:
    labels, scores, patients = make_study(6)
    samples, some = bootstrap_patients(patients, 20, seed=0), np.arange(0, 300, 2)
    areas, _ = auroc_and_average_precision(labels[some], scores[some], samples.subset(some))
    weights = samples.counts[1:][:, samples.patient[some]]
    expected = [roc_auc_score(labels[some, 0], scores[some, 0], sample_weight=row) for row in weights]
    np.testing.assert_allclose(areas.samples[:, 0], expected, atol=1e-12)


def test_whole_numbers_stay_exact_on_many_images() -> None:
    random = np.random.default_rng(0)
    labels = (random.random((120_000, 1)) < 0.5).astype(np.uint8)
    scores = random.normal(size=labels.shape)
    samples = BootstrapSamples(np.full((1, 1), 9, np.uint8), np.zeros(len(labels), np.intp))
    areas, _ = auroc_and_average_precision(labels, scores, samples)
    assert areas.value[0] == pytest.approx(roc_auc_score(labels[:, 0], scores[:, 0]), rel=0, abs=1e-14)
