from base64 import b64decode
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cxr.core.errors import InputError
from cxr.core.labels import CLASSES, FINDINGS
from cxr.inference.saliency import METHODS, layer_cam
from cxr.models.classifier import Classifier, build_classifier
from cxr.reporting.examples import SIDE, choose_examples, collect_examples, image_url, overlay_url
from cxr.reporting.overlay import overlay
from cxr.reporting.run import Run
from tests.fixtures.networks import TINY
from tests.fixtures.reported import make_run


@pytest.fixture(scope="module")
def run() -> Run:
    return make_run()


@pytest.fixture
def classifier() -> Classifier:
    torch.manual_seed(0)
    return build_classifier(TINY, None, 0, 0)


def test_examples_are_extremes_and_each_image_is_used_once() -> None:
    random = np.random.default_rng(0)
    labels = (random.random((60, 15)) < 0.3).astype(np.uint8)
    probabilities, thresholds = random.random((60, 15)), np.full(15, 0.5)
    chosen = choose_examples(labels, probabilities, thresholds)
    kinds = ["true positive", "true positive", "false positive", "false negative", "borderline", "borderline"]
    assert [one.kind for one in chosen] == kinds
    assert len({one.row for one in chosen}) == 6

    def values(label: int, without: set[int]) -> list[float]:
        findings = [CLASSES.index(name) for name in FINDINGS]
        pairs = [(row, column) for row in range(60) for column in findings if row not in without]
        return [probabilities[pair] for pair in pairs if labels[pair] == label]

    true_positive, false_positive, false_negative = (
        probabilities[one.row, one.column] for one in (chosen[0], chosen[2], chosen[3])
    )
    used = {one.row for one in chosen[:2]}
    assert true_positive == max(values(1, set()))
    assert false_positive == max(values(0, used))
    assert false_negative == min(values(1, {*used, chosen[2].row}))


def test_few_images_give_few_examples() -> None:
    chosen = choose_examples(np.ones((1, 15), np.uint8), np.full((1, 15), 0.9), np.full(15, 0.5))
    assert [(one.kind, one.row) for one in chosen] == [("true positive", 0)]


def test_a_network_without_saliency_maps_gives_examples_without_maps(
    run: Run, classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise InputError("maps need one square grid of features")

    monkeypatch.setattr("cxr.reporting.examples.METHODS", dict.fromkeys(METHODS, refuse))
    images = np.zeros((len(run.test.labels), 32, 32), np.uint8)
    examples = collect_examples(run.test, run.decisions, images, np.arange(len(images)), [classifier])
    assert examples.maps == [None] * len(examples.chosen)
    assert examples.problem == "maps need one square grid of features"


def test_images_and_maps_are_those_of_the_chosen_rows_and_classes(run: Run, classifier: Classifier) -> None:
    images = np.random.default_rng(1).integers(0, 256, (2 * len(run.test.labels), 32, 32)).astype(np.uint8)
    rows = np.arange(len(images))[::-2]
    examples = collect_examples(run.test, run.decisions, images, rows, [classifier])
    for one, image, saliency in zip(examples.chosen, examples.images, examples.maps, strict=True):
        assert np.array_equal(image, images[rows[one.row]])
        expected = layer_cam(classifier, torch.from_numpy(image)[None, None] / 255, torch.tensor([one.column]))
        assert saliency is not None
        np.testing.assert_allclose(saliency, expected[0].numpy(), atol=1e-5)


def png_pixels(url: str | None) -> Any:
    assert url is not None
    kind, _, content = url.partition(";base64,")
    assert kind == "data:image/png"
    return np.asarray(Image.open(BytesIO(b64decode(content))))


def test_data_urls_have_the_enlarged_image_and_its_overlay() -> None:
    gray, saliency = np.full((32, 32), 100, np.uint8), np.zeros((32, 32))
    saliency[20:28, 4:12] = 3
    enlarged = png_pixels(image_url(gray))
    assert np.array_equal(enlarged, np.full((SIDE, SIDE), 100))
    assert np.array_equal(png_pixels(overlay_url(gray, saliency)), overlay(enlarged, saliency))
    assert overlay_url(gray, saliency * 0) is None
