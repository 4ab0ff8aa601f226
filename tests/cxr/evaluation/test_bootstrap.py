"""Confidence intervals and paired comparisons by the patient bootstrap.

`tests/benchmarks/test_coverage.py` tests their coverage.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import precision_score, recall_score

from cxr.evaluation import bootstrap
from cxr.evaluation.bootstrap import (
    BootstrapDistribution,
    bootstrap_patients,
    difference,
    holm,
)
from cxr.evaluation.ranking import auroc_and_average_precision
from tests.fixtures.study import make_study


def distribution(*columns: list[float], value: list[float], dof: float = 9) -> BootstrapDistribution:
    """A distribution with the given values in the bootstrap samples, a list for each class."""
    samples = np.array(columns, float).T
    return BootstrapDistribution(np.array(value, float), samples, np.full(len(value), dof))


def test_the_seed_decides_and_patients_are_drawn_as_often_as_there_are() -> None:
    patients = np.array([7, 7, 3, 9, 9, 9])
    samples = bootstrap_patients(patients, 200, seed=4)
    np.testing.assert_array_equal(samples.counts, bootstrap_patients(patients, 200, seed=4).counts)
    assert (samples.counts != bootstrap_patients(patients, 200, seed=5).counts).any()
    assert (samples.counts.sum(axis=1) == 3).all()
    assert (samples.counts[0] == 1).all()
    weights = samples.counts[:, samples.patient]
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 3] == weights[:, 5]).all()


def test_a_class_with_one_value_has_no_interval_and_is_left_out_of_the_mean() -> None:
    labels, scores, patients = make_study(7)
    labels[:, 1] = 0
    areas, precisions = auroc_and_average_precision(labels, scores, bootstrap_patients(patients, 100, 0))
    for measure in (areas, precisions):
        assert np.isnan(measure.value).tolist() == [False, True, False]
        assert np.isnan(measure.interval()[:, 0]).tolist() == [False, True, False]
        np.testing.assert_array_equal(measure.mean([0, 1, 2]).interval(), measure.mean([0, 2]).interval())
        assert np.isnan(measure.mean([1]).value[0])
        assert np.isnan(measure.mean([1]).interval()).all()


def test_the_mean_is_that_of_the_classes_that_a_bootstrap_sample_has() -> None:
    measure = distribution([0.6, np.nan, 0.8], [0.9, 0.7, np.nan], [0.1, 0.1, 0.1], value=[0.7, 0.8, 0.1])
    mean = measure.mean([0, 1])
    assert mean.value[0] == pytest.approx(0.75)
    np.testing.assert_allclose(mean.samples[:, 0], [0.75, 0.7, 0.8])


def test_two_classes_that_vary_alike_have_twice_the_degrees_of_freedom() -> None:
    measure = distribution([0.6, 0.7, 0.8], [0.8, 0.7, 0.6], value=[0.7, 0.7], dof=12)
    assert measure.mean([0, 1]).dof[0] == pytest.approx(24)
    assert measure.mean([0]).dof[0] == pytest.approx(12)


def test_the_interval_is_students_on_the_logit_scale() -> None:
    logits = np.array([1.0, 2.0, 3.0])  # their standard deviation is 1
    measure = distribution(list(1 / (1 + np.exp(-logits))), value=[1 / (1 + np.exp(-2.0))], dof=10)
    # 2.228 is the 97.5 % point of Student's t with 10 degrees of freedom, from a table.
    expected = 1 / (1 + np.exp(-(2 + np.array([-2.228139, 2.228139]))))
    np.testing.assert_allclose(measure.interval()[0], expected, atol=1e-6)


def test_where_the_bootstrap_cannot_tell_there_is_no_interval() -> None:
    perfect = distribution([1.0, 1.0, 1.0], value=[1.0])
    one_patient = distribution([0.8, 0.9, 0.7], value=[0.8], dof=0)
    assert np.isnan(perfect.interval()).all()
    assert np.isnan(one_patient.interval()).all()


def test_a_bootstrap_sample_at_one_counts_as_halfway_to_it() -> None:
    at_one = distribution([0.8, 0.9, 1.0], value=[0.9]).interval()
    np.testing.assert_array_equal(at_one, distribution([0.8, 0.9, 0.95], value=[0.9]).interval())
    assert (at_one < 1).all()


@pytest.mark.slow
@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10_000))
def test_proportions_are_those_of_scikit_learn(seed: int) -> None:
    labels, scores, patients = make_study(seed, images=40)
    truth, decisions = labels > 0, scores >= 0.5
    samples = bootstrap_patients(patients, 10, seed)
    sensitivity = bootstrap.proportion(decisions, truth, samples)
    precision = bootstrap.proportion(truth, decisions, samples)
    for row, counts in enumerate(samples.counts[1:]):
        for function, measure in ((recall_score, sensitivity), (precision_score, precision)):
            for column in range(labels.shape[1]):
                weights = counts[samples.patient]
                expected = function(truth[:, column], decisions[:, column], sample_weight=weights, zero_division=np.nan)
                np.testing.assert_allclose(measure.samples[row, column], expected, atol=1e-12)


def test_where_all_samples_are_equal_a_proportion_has_the_exact_interval_of_its_patients() -> None:
    """Of 15 patients with two positives each: the closed form at 1 and at 0, and scipy's exact interval at a half."""
    patients, everything = np.arange(30) // 2, np.ones((30, 3), bool)
    chosen = np.stack([np.ones(30), np.zeros(30), np.arange(30) % 2], axis=1).astype(bool)
    samples = bootstrap_patients(patients, 50, 0)
    found = bootstrap.proportion(chosen, everything, samples).interval()
    np.testing.assert_allclose(found[0], [0.025 ** (1 / 15), 1])
    np.testing.assert_allclose(found[1], [0, 1 - 0.025 ** (1 / 15)])
    exact = binomtest(14, 28).proportion_ci(method="exact")
    np.testing.assert_allclose(bootstrap.clopper_pearson(np.array([0.5]), np.array([28.0])), [[exact.low, exact.high]])
    assert found[2, 0] < 0.5 < found[2, 1]
    lone = bootstrap.proportion(chosen[:2], everything[:2], samples.subset(np.arange(2))).interval()
    np.testing.assert_allclose(lone[0], [0.025, 1])


def test_a_proportion_of_nothing_is_undefined() -> None:
    labels, scores, patients = make_study(8)
    nothing = bootstrap.proportion(labels > 0, scores > 99, bootstrap_patients(patients, 20, 0))
    assert np.isnan(nothing.value).all()
    assert np.isnan(nothing.interval()).all()


def test_equal_scores_differ_by_nothing() -> None:
    labels, scores, patients = make_study(9)
    samples = bootstrap_patients(patients, 99, 0)
    first, _ = auroc_and_average_precision(labels, scores, samples)
    # Another scale, the same order: the same measures.
    second, _ = auroc_and_average_precision(labels, 3 * scores - 1, samples)
    found = difference(first, second)
    for bound in (found.value, found.low, found.high):
        np.testing.assert_array_equal(bound, np.zeros(3))
    np.testing.assert_array_equal(found.p_value, np.ones(3))


def test_a_planted_difference_is_found_and_only_where_it_is() -> None:
    labels, scores, patients = make_study(10, images=900, decimals=3)
    worse = scores + np.random.default_rng(1).normal(0, [3, 0.01, 0.01], scores.shape)
    samples = bootstrap_patients(patients, 999, 0)
    first, second = (auroc_and_average_precision(labels, each, samples)[0] for each in (scores, worse))
    found = difference(first, second)
    assert found.high[0] < 0
    assert found.p_value[0] == 1 / 1000
    assert (found.p_value[1:] > 0.05).all()
    assert ((found.low < 0) & (found.high > 0)).tolist() == [False, True, True]
    other_way = difference(second, first)
    np.testing.assert_array_equal(other_way.p_value, found.p_value)
    np.testing.assert_allclose(other_way.low, -found.high)


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 10_000), st.integers(19, 120))
def test_the_interval_leaves_out_zero_where_p_is_at_most_0_05(seed: int, samples: int) -> None:
    random = np.random.default_rng(seed)
    # Steps of 1/16 are exact: there are ties, and no rounding.
    values = np.round(random.normal(2, 1, (samples, 1)) * 16) / 16
    first = BootstrapDistribution(np.zeros(1), np.zeros((samples, 1)), np.ones(1))
    found = difference(first, BootstrapDistribution(np.full(1, 2.0), values, np.ones(1)))
    assert (found.low[0] > 0) == (found.p_value[0] <= 0.05)
    assert found.p_value[0] == (1 + (np.abs(values - 2) >= 2).sum()) / (1 + samples)


def test_undefined_samples_of_a_difference_are_left_out() -> None:
    first = distribution([0.5] * 40 + [np.nan] * 60, [0.5] * 10 + [np.nan] * 90, value=[0.5, 0.5])
    second = distribution([0.6] * 100, [0.6] * 100, value=[0.6, 0.6])
    found = difference(first, second)
    assert found.p_value[0] == 1 / 41
    assert np.isnan([found.p_value[1], found.low[1], found.high[1]]).all()


def test_holm_by_hand() -> None:
    corrected = holm(np.array([0.01, 0.04, np.nan, 0.03, 0.005]))
    # In order 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1: the last is lifted to the one before it.
    np.testing.assert_allclose(corrected, [0.03, 0.06, np.nan, 0.06, 0.02])
    assert holm(np.array([0.6, 0.9])).tolist() == [1, 1]
    assert holm(np.array([])).tolist() == []
