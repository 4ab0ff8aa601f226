from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cxr.core.errors import InputError
from cxr.core.labels import CLASSES
from cxr.inference.ensemble import LoadedMember, check_no_leak, load_members, mean_saliency_maps, predict_members
from cxr.inference.saliency import grad_cam
from cxr.inference.tta import View
from cxr.models.classifier import Architecture, Classifier, build_classifier
from cxr.models.image_store import ImageStore
from cxr.models.members import Member
from cxr.models.model_file import save_model

CPU = torch.device("cpu")
ARCHITECTURE = Architecture("test_resnet", 1, 32)


def make_classifier(seed: int) -> Classifier:
    torch.manual_seed(seed)
    return build_classifier(ARCHITECTURE, None, 0, 0)


def make_images(count: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32), np.uint8)


def test_members_are_loaded_with_their_descriptions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    member = Member("test_resnet", 1)
    member.file.parent.mkdir(parents=True)
    save_model(make_classifier(0), ARCHITECTURE, {"patients": [4, 7]}, member.file)
    (loaded,) = load_members([member], 32, CPU)
    assert loaded.member == member
    assert loaded.description["patients"] == [4, 7]
    with pytest.raises(InputError, match=r"test_resnet-1\.safetensors expects 32 px, but data/images\.npy has 64 px"):
        load_members([member], 64, CPU)


def test_a_member_trained_on_a_test_patient_is_an_input_error() -> None:
    loaded = LoadedMember(Member("test_resnet", 1), make_classifier(0), {"patients": [4, 7, 9]})
    check_no_leak([loaded], {1, 2}, {4})
    with pytest.raises(InputError, match=r"test_resnet-1\.safetensors was trained on 2 patients of test, such as 7"):
        check_no_leak([loaded], {9, 7, 1}, set())


def test_a_member_trained_on_a_validation_patient_is_an_input_error() -> None:
    description = {"patients": [4, 7, 9], "val_patients": [9]}
    loaded = LoadedMember(Member("test_resnet", 1), make_classifier(0), description)
    check_no_leak([loaded], {1, 2}, {9, 11})
    with pytest.raises(InputError, match=r"was trained on 2 patients of val, such as 4: thresholds and calibration"):
        check_no_leak([loaded], {1, 2}, {4, 7, 9})


def test_classes_without_training_labels_are_nan() -> None:
    loaded = LoadedMember(Member("test_resnet", 1), make_classifier(0), {"untrained": ["Hernia"]})
    images = ImageStore(make_images(), np.arange(3), CPU)
    probabilities = predict_members([loaded], images, 2, [View()])[loaded.member]
    is_hernia = np.array(CLASSES) == "Hernia"
    assert np.isnan(probabilities).tolist() == [is_hernia.tolist()] * 3


def test_saliency_maps_are_averaged_over_the_networks() -> None:
    pixels, classifiers, classes = make_images(), [make_classifier(seed) for seed in (1, 2)], np.array([0, 5, 2])
    maps = list(mean_saliency_maps(grad_cam, classifiers, ImageStore(pixels, np.arange(3), CPU), classes, 2))
    batch = torch.from_numpy(pixels)[:, None] / 255
    expected = [grad_cam(classifier, batch, torch.from_numpy(classes)).numpy() for classifier in classifiers]
    np.testing.assert_allclose(maps, np.mean(expected, axis=0), atol=1e-6)
