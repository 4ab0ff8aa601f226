import numpy as np
import pytest
import torch

from cxr.models.classifier import Classifier, build_classifier
from cxr.models.image_store import ImageStore
from cxr.models.prediction import predict_logits, sequential_batches
from tests.fixtures.networks import TINY


@pytest.fixture
def classifier() -> Classifier:
    torch.manual_seed(0)
    return build_classifier(TINY)


def test_batches_keep_the_order_and_only_the_last_is_smaller() -> None:
    batches = sequential_batches(np.array([3, 1, 4, 1, 5]), 2)
    assert [batch.tolist() for batch in batches] == [[3, 1], [4, 1], [5]]
    assert [len(batch) for batch in sequential_batches(np.arange(4), 2)] == [2, 2]


def test_logits_are_those_of_each_image_in_evaluation_mode(classifier: Classifier) -> None:
    images = np.random.default_rng(0).integers(0, 256, (9, 32, 32), np.uint8)
    rows = np.array([8, 0, 5, 3, 1])
    logits = predict_logits(classifier.train(), ImageStore(images, rows, torch.device("cpu")), 2)
    assert not classifier.training
    with torch.no_grad():
        expected = classifier(torch.from_numpy(images[rows]).unsqueeze(1) / 255)
    torch.testing.assert_close(logits, expected)
    assert logits.dtype == torch.float32
