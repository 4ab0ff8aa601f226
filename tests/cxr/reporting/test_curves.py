import numpy as np
from sklearn.metrics import auc, roc_auc_score

from cxr.core.labels import CLASSES
from cxr.reporting.curves import MAX_POINTS, compute_curves

RANDOM = np.random.default_rng(1)
LABELS = (RANDOM.random((2000, 15)) < 0.3).astype(np.uint8)
LABELS[:, 2] = 0
PROBABILITIES = 1 / (1 + np.exp(-(LABELS + RANDOM.normal(size=LABELS.shape))))


def test_curves_have_few_points_and_the_area_of_all_points() -> None:
    curves = compute_curves(LABELS, PROBABILITIES, PROBABILITIES, 10)
    for column, name in enumerate(CLASSES):
        roc = curves.roc[name]
        if column == 2:
            assert roc.empty
            assert curves.precision_recall[name].empty
            continue
        assert len(roc) <= MAX_POINTS
        area = auc(roc["false_positive_rate"], roc["true_positive_rate"])
        assert abs(area - roc_auc_score(LABELS[:, column], PROBABILITIES[:, column])) < 0.005
        assert curves.precision_recall[name]["recall"].is_monotonic_increasing


def test_reliability_is_computed_before_and_after_calibration() -> None:
    curves = compute_curves(LABELS, PROBABILITIES, PROBABILITIES / 2, 10)
    for name in CLASSES:
        before, after = curves.reliability_before[name], curves.reliability_after[name]
        assert len(before) == 10
        np.testing.assert_allclose(after["mean_predicted"], before["mean_predicted"] / 2)
        np.testing.assert_array_equal(after["observed"], before["observed"])
