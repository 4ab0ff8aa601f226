"""The Streamlit script of the page, which Streamlit runs from top to bottom after each change on the page."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from cxr.core.errors import InputError
from cxr.reporting.overlay import overlay
from tools.app.fragments import ClassRow, class_rows, data_url, render_macro
from tools.app.service import AppState, InferenceService, PredictedImage, load_state
from tools.app.text import describe_ensemble
from tools.predict.output import NOT_CLINICAL, SYNTHETIC
from tools.predict.reading import Failure, InputImage

ICON = '<svg viewBox="0 0 16 16"><circle cx="8" cy="8" r="7" fill="#e8a33d"/></svg>'
ALTERNATIVE = "the radiograph"


class Selection(NamedTuple):
    """The image that the visitor uploaded or selected."""

    key: str  # unique within the visitor's session
    name: str
    labels: str  # text about its labels; empty for an upload
    file: bytes


class CachedResult(NamedTuple):
    """The results for a selection, kept between runs of the script."""

    key: str
    result: PredictedImage | Failure
    saliency_maps: dict[str, NDArray[np.float64]]  # by class, of those that were shown


class DisplayedImage(NamedTuple):
    """The image, with or without a saliency map."""

    pixels: NDArray[np.uint8]  # [height, width], or [height, width, 3] with a saliency map
    alternative: str  # text for screen readers
    legend: str | None  # "" for the colour scale, other text instead of it, None for no legend


def main() -> None:
    """Show the page."""
    st.set_page_config("Chest X-ray", page_icon=ICON, layout="wide")
    st.html(Path(__file__).with_name("style.css"))
    state = load_state()
    st.html(render_macro("header", NOT_CLINICAL, SYNTHETIC if state.service.ensemble.is_synthetic else ""))
    selection = select_image(state)
    container = st.empty()
    if selection is None:
        container.html(render_macro("message", "Upload a radiograph, or select a test image."))
    else:
        # One container for both, so that the previous image disappears before the next is predicted.
        with container:
            cached = predict_once(state.service, selection)
        with container.container():
            show_result(state, selection, cached)
    st.html(render_macro("about", describe_ensemble(state.service.ensemble, state.metrics)))


def select_image(state: AppState) -> Selection | None:
    """Show the upload and the list of samples, and return the selected image; a choice in one clears the other."""
    session = st.session_state
    session.setdefault("sample", 0 if state.samples else None)
    session.setdefault("uploads", 0)
    left, right = st.columns(2, gap="large")
    uploaded = left.file_uploader(
        "Upload a radiograph (PNG, JPEG or DICOM); it stays on this machine and is not saved",
        key=f"upload {session.uploads}",
        on_change=clear_sample,
    )
    names = [f"{', '.join(sample.labels)} ({sample.name})" for sample in state.samples]
    index = right.selectbox(
        "Or select a test image by its labels",
        range(len(names)),
        format_func=names.__getitem__,
        key="sample",
        on_change=clear_upload,
        placeholder="select an image" if names else "there are no images",
        disabled=not names,
    )
    if uploaded is not None:
        return Selection(uploaded.file_id, uploaded.name, "", uploaded.getvalue())
    if index is None:
        return None
    sample = state.samples[index]
    return Selection(sample.name, sample.name, f"labels: {', '.join(sample.labels)}", sample.file)


def clear_sample() -> None:
    """Clear the selection of a sample."""
    st.session_state.sample = None


def clear_upload() -> None:
    """Clear the upload: a widget with a new key is empty."""
    st.session_state.uploads += 1


def predict_once(service: InferenceService, selection: Selection) -> CachedResult:
    """Return the results for the selection, computed once and kept in the session."""
    cached = st.session_state.get("cached")
    if cached is None or cached.key != selection.key:
        with st.spinner("Predicting …"):
            cached = CachedResult(selection.key, service.predict(selection.file, selection.name), {})
        st.session_state.cached = cached
    return cached


def show_result(state: AppState, selection: Selection, cached: CachedResult) -> None:
    """Show the image with a saliency map on the left and the classes on the right, or why it cannot be read."""
    if isinstance(cached.result, Failure):
        st.html(render_macro("failure", selection.name, cached.result.reason))
        return
    prediction = cached.result.prediction
    if prediction.warnings:
        st.html(render_macro("warnings", prediction.warnings))
    rows = class_rows(prediction, state.thresholds, state.metrics)
    left, right = st.columns([1, 1], gap="large")
    with left:
        show_image(state.service, selection, cached.result.image, cached.saliency_maps, rows)
    with right:
        st.html(render_macro("classes", "Predicted positive", [row for row in rows if row.is_predicted]))
        st.html(render_macro("classes", "Predicted negative", [row for row in rows if not row.is_predicted]))


def show_image(
    service: InferenceService,
    selection: Selection,
    image: InputImage,
    saliency_maps: dict[str, NDArray[np.float64]],
    rows: list[ClassRow],
) -> None:
    """Show the image with the saliency map of the selected class, at first the first of `rows`."""
    selector, switch = st.columns([3, 2], vertical_alignment="bottom")
    name = selector.selectbox("Saliency map of", [row.name for row in rows], key=f"class of {selection.key}")
    displayed = DisplayedImage(image.display, ALTERNATIVE, None)
    if switch.toggle("Show the saliency map", value=True, key="show saliency map"):
        displayed = with_saliency_map(service, image, name, saliency_maps)
    source, alternative = data_url(displayed.pixels), f"{selection.name}: {displayed.alternative}"
    st.html(render_macro("image", source, alternative, selection.name, selection.labels))
    if displayed.legend is not None:
        st.html(render_macro("legend", displayed.legend))
    st.html(render_macro("explanation", next(row.explanation for row in rows if row.name == name)))


def with_saliency_map(
    service: InferenceService, image: InputImage, name: str, saliency_maps: dict[str, NDArray[np.float64]]
) -> DisplayedImage:
    """Return the image with the saliency map of the class `name`, computed once and kept in `saliency_maps`."""
    try:
        if name not in saliency_maps:
            saliency_maps[name] = service.saliency_map(image, name)
    except InputError as error:
        return DisplayedImage(image.display, ALTERNATIVE, f"There is no saliency map: {error}.")
    if not saliency_maps[name].any():
        return DisplayedImage(image.display, ALTERNATIVE, f"The saliency map of {name} is 0 everywhere.")
    alternative = f"{ALTERNATIVE} with the saliency map of {name}"
    return DisplayedImage(overlay(image.display, saliency_maps[name]), alternative, "")


main()
