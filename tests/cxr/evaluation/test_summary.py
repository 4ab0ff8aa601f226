import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from cxr.core.labels import CLASSES
from cxr.evaluation.bootstrap import bootstrap_patients
from cxr.evaluation.subgroups import UNKNOWN
from cxr.evaluation.summary import subgroups


def test_a_group_with_too_few_of_every_class_has_no_mean() -> None:
    random = np.random.default_rng(0)
    ages = [10] * 8 + [30] * 100 + [70] * 100
    table = pd.DataFrame({"sex": "F", "age": ages, "view": "PA"})
    labels = (random.random((208, 15)) < 0.4).astype(np.uint8)
    scores = random.random(labels.shape)
    groups = subgroups(table, labels, scores, bootstrap_patients(np.arange(208), 100, 1))["age"]["groups"]
    assert {name: group["classes_in_mean"] for name, group in groups.items()} == {
        "under 18": 0,
        "18-39": 15,
        "60 and over": 15,
    }
    assert "mean" not in groups["under 18"]["auroc"]
    assert all(groups["under 18"]["auroc"][name]["value"] is None for name in CLASSES)
    expected = roc_auc_score(labels[8:108], scores[8:108])
    np.testing.assert_allclose(groups["18-39"]["auroc"]["mean"]["value"], expected)


def test_a_group_of_unknown_value_counts_the_classes_that_its_own_mean_is_over() -> None:
    random = np.random.default_rng(1)
    table = pd.DataFrame({"sex": ["F"] * 100 + ["M"] * 100 + [""] * 50, "age": 50, "view": "PA"})
    labels = (random.random((250, 15)) < 0.5).astype(np.uint8)
    labels[200:, 3] = 0
    groups = subgroups(table, labels, random.random(labels.shape), bootstrap_patients(np.arange(250), 100, 1))
    counted = {name: group["classes_in_mean"] for name, group in groups["sex"]["groups"].items()}
    assert counted == {"F": 15, "M": 15, UNKNOWN: 14}
