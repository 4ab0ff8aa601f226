from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from cxr.core.labels import CLASSES, NO_FINDING
from cxr.evaluation.bootstrap import bootstrap_patients
from cxr.evaluation.ensemble_gain import ensemble_gain
from cxr.evaluation.metrics import Labels, Scores
from cxr.evaluation.ranking import auroc_and_average_precision
from cxr.evaluation.schema import Difference, MeanAndDeviation
from cxr.models.members import Member

FINDINGS = [column for column, name in enumerate(CLASSES) if name != NO_FINDING]
PATIENTS = np.arange(200) // 2
SAMPLES = bootstrap_patients(PATIENTS, 59, 1)


def labels_of(seed: int = 0) -> Labels:
    return (np.random.default_rng(seed).random((200, 15)) < 0.3).astype(np.uint8)


def scores_of(labels: Labels, seed: int, noise: float = 1.0) -> Scores:
    logits = labels + np.random.default_rng([seed, 7]).normal(0, noise, labels.shape)
    return np.asarray(1 / (1 + np.exp(-logits)))


def metrics_of(labels: Labels, members: dict[Member, Scores]) -> Any:
    ensemble = np.mean(list(members.values()), axis=0)
    return ensemble_gain(labels, members, auroc_and_average_precision(labels, ensemble, SAMPLES)[0], SAMPLES)


def test_an_ensemble_of_one_is_its_member() -> None:
    labels = labels_of()
    report = metrics_of(labels, {Member("resnet10t", 3): scores_of(labels, 0)})
    member = report.members["resnet10t-3"]
    assert (member.model, member.seed) == ("resnet10t", 3)
    assert member.auroc == report.ensemble.auroc
    nothing = Difference(value=0, low=0, high=0, p_value=1)
    assert member.gain == {"mean_15": nothing, "mean_14": nothing}
    only = report.models["resnet10t"]
    assert only.seeds == 1
    assert only.auroc["mean_15"] == MeanAndDeviation(mean=member.auroc["mean_15"].value, standard_deviation=None)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 1000))
def test_two_members_are_scikit_learns(seed: int) -> None:
    labels = labels_of(seed)
    members = {Member("a", 1): scores_of(labels, seed), Member("b", 1): scores_of(labels, seed + 1)}
    report = metrics_of(labels, members)
    ensemble = np.mean(list(members.values()), axis=0)
    for name, columns in (("mean_15", list(range(15))), ("mean_14", FINDINGS)):
        whole = roc_auc_score(labels[:, columns], ensemble[:, columns])
        assert report.ensemble.auroc[name].value == pytest.approx(whole, abs=1e-12)
        for member, scores in members.items():
            alone = roc_auc_score(labels[:, columns], scores[:, columns])
            found = report.members[str(member)]
            assert found.auroc[name].value == pytest.approx(alone, abs=1e-12)
            assert found.auroc[name].low < alone < found.auroc[name].high
            assert found.gain[name].value == pytest.approx(whole - alone, abs=1e-12)


@pytest.mark.slow
def test_the_gain_is_the_paired_difference_on_the_same_patients() -> None:
    labels = labels_of()
    members = {Member("a", seed): scores_of(labels, seed) for seed in (1, 2)}
    gain = metrics_of(labels, members).members["a-1"].gain["mean_15"]
    ensemble = np.mean(list(members.values()), axis=0)
    weights = SAMPLES.counts[1:, PATIENTS]
    drawn = np.array(
        [
            roc_auc_score(labels, ensemble, sample_weight=row)
            - roc_auc_score(labels, members[Member("a", 1)], sample_weight=row)
            for row in weights
        ]
    )
    # With 59 bootstrap samples p reaches 0.05 at the third farthest: 3 / 60.
    farthest = np.sort(np.abs(drawn - gain.value))[::-1]
    assert gain.high - gain.value == pytest.approx(farthest[2], abs=1e-12)
    assert gain.value - gain.low == pytest.approx(farthest[2], abs=1e-12)
    assert gain.p_value == (1 + np.count_nonzero(farthest >= gain.value)) / 60
    assert gain.low > 0


def test_a_planted_weak_member_gains_most() -> None:
    labels = labels_of()
    noises = {Member("weak", 1): 4.0, Member("strong", 1): 0.7}
    report = metrics_of(labels, {member: scores_of(labels, 5, noise) for member, noise in noises.items()})
    gains = {name: member.gain["mean_15"] for name, member in report.members.items()}
    assert gains["weak-1"].value > gains["strong-1"].value
    assert gains["weak-1"].low > 0
    assert gains["weak-1"].p_value < 0.05


def test_each_model_has_the_deviation_over_its_own_seeds() -> None:
    labels = labels_of()
    names = [Member("a", 1), Member("a", 2), Member("a", 5), Member("b", 1)]
    report = metrics_of(labels, {name: scores_of(labels, index) for index, name in enumerate(names)})
    aurocs = [report.members[f"a-{seed}"].auroc["mean_14"].value for seed in (1, 2, 5)]
    found = report.models["a"]
    assert found.seeds == 3
    assert found.auroc["mean_14"].mean == pytest.approx(np.mean(aurocs))
    assert found.auroc["mean_14"].standard_deviation == pytest.approx(np.std(aurocs, ddof=1))
    assert report.models["b"].auroc["mean_14"].standard_deviation is None


def test_a_class_without_positives_is_left_out_of_every_mean() -> None:
    labels = labels_of()
    labels[:, 0] = 0
    scores = scores_of(labels, 1)
    report = metrics_of(labels, {Member("a", 1): scores})
    expected = roc_auc_score(labels[:, 1:], scores[:, 1:])
    assert report.members["a-1"].auroc["mean_15"].value == pytest.approx(expected)
    labels[:] = 0
    nowhere = metrics_of(labels, {Member("a", 1): scores, Member("a", 2): scores})
    assert set(nowhere.members["a-1"].gain["mean_15"].model_dump().values()) == {None}
    assert nowhere.models["a"].auroc["mean_15"] == MeanAndDeviation(mean=None, standard_deviation=None)
