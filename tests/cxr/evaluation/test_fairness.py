"""Error rates by group, compared with counting, and the false positive rate of the corrected comparisons."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from cxr.core.labels import CLASSES, NO_FINDING
from cxr.evaluation.bootstrap import bootstrap_patients
from cxr.evaluation.fairness import group_rates
from cxr.evaluation.schema import Fairness
from cxr.evaluation.subgroups import MIN_IMAGES_PER_LABEL

NORMAL = CLASSES.index(NO_FINDING)


def study(images: int, seed: int) -> tuple[pd.DataFrame, Any, Any]:
    """Two images of each patient; predictions that depend on the label only."""
    random = np.random.default_rng(seed)
    patients = images // 2
    people: dict[str, Any] = {
        "sex": random.choice(["F", "M"], patients),
        "age": pd.array(random.integers(20, 80, patients), dtype="Int64"),
        "view": random.choice(["AP", "PA"], patients),
    }
    table = pd.DataFrame({name: np.repeat(values, 2) for name, values in people.items()})
    labels = (random.random((images, len(CLASSES))) < 0.3).astype(np.uint8)
    return table, labels, random.random(labels.shape) < np.where(labels == 1, 0.7, 0.2)


def rates_of(table: pd.DataFrame, labels: Any, predicted: Any, samples: int = 100) -> Fairness:
    return group_rates(table, labels, predicted, bootstrap_patients(np.arange(len(table)) // 2, samples, 1))


def test_rates_are_counted_within_the_group_and_outside() -> None:
    table, labels, predicted = study(600, 1)
    table.loc[:59, "sex"] = ""
    found = rates_of(table, labels, predicted)
    women, men = (table["sex"] == "F").to_numpy(), (table["sex"] == "M").to_numpy()
    assert list(found.groups["sex"]) == ["F", "M"]
    assert found.groups["sex"]["F"].images == women.sum()
    for column, name in enumerate(CLASSES):
        for kind, value in (("true_positive_rate", 1), ("false_positive_rate", 0)):
            inside, outside = (predicted[group & (labels[:, column] == value), column].mean() for group in (women, men))
            rate = getattr(found.groups["sex"]["F"], kind)[name]
            assert (rate.value, rate.rest) == (pytest.approx(inside), pytest.approx(outside))
            assert rate.difference == pytest.approx(inside - outside)
            assert rate.difference_low < rate.difference < rate.difference_high
            assert rate.p_holm >= rate.p_value
    young = found.groups["age"]["18-39"].false_positive_rate[NO_FINDING]
    old = table["age"].to_numpy(float) >= 40
    assert young.rest == pytest.approx(predicted[old & (labels[:, NORMAL] == 0), NORMAL].mean())


def test_underdiagnosis_is_given_for_intersections() -> None:
    table, labels, predicted = study(600, 2)
    found = rates_of(table, labels, predicted)
    assert list(found.underdiagnosis) == ["sex and age", "sex and view", "age and view"]
    both = ((table["sex"] == "F") & (table["view"] == "AP")).to_numpy()
    abnormal = labels[:, NORMAL] == 0
    rate = found.underdiagnosis["sex and view"]["F, AP"]
    assert rate.value == pytest.approx(predicted[both & abnormal, NORMAL].mean())
    assert rate.rest == pytest.approx(predicted[~both & abnormal, NORMAL].mean())


def test_a_planted_difference_is_significant_after_correction_and_only_where_it_is() -> None:
    table, labels, predicted = study(3000, 3)
    women = (table["sex"] == "F").to_numpy()
    predicted[women, NORMAL] |= np.random.default_rng(4).random(women.sum()) < 0.3
    found = rates_of(table, labels, predicted, samples=400)
    planted = found.groups["sex"]["F"].false_positive_rate[NO_FINDING].difference
    assert planted is not None
    assert planted > 0.15
    significant = {
        (group, name)
        for groups in found.groups.values()
        for group, rates in groups.items()
        for kind in (rates.true_positive_rate, rates.false_positive_rate)
        for name, rate in kind.items()
        if rate.p_holm is not None and rate.p_holm <= 0.05
    }
    assert significant == {("F", NO_FINDING), ("M", NO_FINDING)}


def test_without_a_difference_few_studies_have_a_significant_one() -> None:
    """The family-wise error is 5 %: of 40 studies at most 7 have one (99.7 % of the binomial distribution)."""
    wrong = 0
    for seed in range(40):
        found = rates_of(*study(400, 100 + seed))
        rates = [
            rate
            for groups in found.groups.values()
            for group in groups.values()
            for kind in (group.true_positive_rate, group.false_positive_rate)
            for rate in kind.values()
        ]
        wrong += any(rate.p_holm is not None and rate.p_holm <= 0.05 for rate in rates)
    assert wrong <= 7


def test_a_rate_needs_enough_images_on_both_sides() -> None:
    table, labels, predicted = study(400, 5)
    table["sex"] = ["F"] * 30 + ["M"] * 370
    labels[:30, 0] = [1] * (MIN_IMAGES_PER_LABEL - 1) + [0] * 21
    labels[:30, 1] = [1] * MIN_IMAGES_PER_LABEL + [0] * 20
    rates = rates_of(table, labels, predicted).groups["sex"]["F"]
    assert CLASSES[0] not in rates.true_positive_rate
    assert CLASSES[0] in rates.false_positive_rate
    assert CLASSES[1] in rates.true_positive_rate
    alone = rates_of(table.assign(sex="F", age=50, view="PA"), labels, predicted)
    assert not alone.groups["sex"]["F"].true_positive_rate
    assert not alone.underdiagnosis


def test_a_rate_of_exactly_0_has_no_test_but_an_interval() -> None:
    table, labels, predicted = study(400, 6)
    predicted[:, 2] = False
    rate = rates_of(table, labels, predicted).groups["sex"]["F"].true_positive_rate[CLASSES[2]]
    assert (rate.value, rate.difference, rate.p_value, rate.p_holm) == (0, 0, None, None)
    assert rate.low == 0
    assert rate.high is not None
    assert 0 < rate.high < 0.2
