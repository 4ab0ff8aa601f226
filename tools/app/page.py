"""What Streamlit runs for a visitor, from top to bottom, each time that something on the page is changed."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from cxr.core.errors import InputError
from tools.app.drawing import Row, data_url, draw, rows
from tools.app.service import Asked, Desk, Service, service
from tools.app.words import facts
from tools.predict.output import NOT_CLINICAL
from tools.predict.overlays import overlay
from tools.predict.reading import Failure, Picture

ICON = '<svg viewBox="0 0 16 16"><circle cx="8" cy="8" r="7" fill="#e8a33d"/></svg>'


class Chosen(NamedTuple):
    """The image that the visitor wants to see."""

    key: str  # tells it from any other that this visitor chose
    name: str
    truth: str  # what is known of it
    file: bytes


class Found(NamedTuple):
    """What is kept of it, so that a change on the page asks the networks no second time."""

    key: str
    result: Asked | Failure
    maps: dict[str, NDArray[np.float64]]  # of each class that was looked at


class Layer(NamedTuple):
    """A picture as it is shown."""

    pixels: NDArray[np.uint8]  # [height, width], or [height, width, 3] under a map
    alternative: str  # what it is, for who cannot see it
    remark: str | None  # what is said of its map; empty where there is one to explain, None where none was wanted


def main() -> None:
    """Draw the page."""
    st.set_page_config("Chest X-ray", page_icon=ICON, layout="wide")
    st.html(Path(__file__).with_name("style.css"))
    here = service()
    st.html(draw("header", NOT_CLINICAL, here.record.synthetic))
    chosen = choose(here)
    place = st.empty()
    if chosen is None:
        place.html(draw("remark", "Drop an X-ray above, or pick a sample."))
    else:
        # In one place: what was said of the last image goes before anything is said of this one.
        with place:
            found = find(here.desk, chosen)
        with place.container():
            show(here, chosen, found)
    st.html(draw("about", facts(here.desk.ensemble, here.record)))


def choose(here: Service) -> Chosen | None:
    """Let the visitor drop an image or pick a sample; the one empties the other."""
    state = st.session_state
    state.setdefault("sample", 0 if here.samples else None)
    state.setdefault("drops", 0)
    left, right = st.columns(2, gap="large")
    dropped = left.file_uploader(
        "Your X-ray: PNG, JPEG or DICOM; it stays on this machine and is not saved",
        key=f"dropped {state.drops}",
        on_change=forget_sample,
    )
    names = [f"{', '.join(sample.labels)} ({sample.name})" for sample in here.samples]
    picked = right.selectbox(
        "Or a sample: a test image, by its labels",
        range(len(names)),
        format_func=names.__getitem__,
        key="sample",
        on_change=forget_drop,
        placeholder="pick one" if names else "there are none here",
        disabled=not names,
    )
    if dropped is not None:
        return Chosen(dropped.file_id, dropped.name, "", dropped.getvalue())
    if picked is None:
        return None
    sample = here.samples[picked]
    verb = "drawn with" if here.record.synthetic else "labelled"
    return Chosen(sample.name, sample.name, f"{verb}: {', '.join(sample.labels)}", sample.file)


def forget_sample() -> None:
    """No sample is picked any more."""
    st.session_state.sample = None


def forget_drop() -> None:
    """An uploader of another key is a new one, and empty."""
    st.session_state.drops += 1


def find(desk: Desk, chosen: Chosen) -> Found:
    """What the networks say, asked once."""
    found = st.session_state.get("found")
    if found is None or found.key != chosen.key:
        with st.spinner("Asking the networks …"):
            found = Found(chosen.key, desk.ask(chosen.file, chosen.name), {})
        st.session_state.found = found
    return found


def show(here: Service, chosen: Chosen, found: Found) -> None:
    """The image with a heat map on the left, the classes on the right; or why there is nothing to show."""
    if isinstance(found.result, Failure):
        st.html(draw("failure", chosen.name, found.result.reason))
        return
    if found.result.answer.flags:
        st.html(draw("flags", found.result.answer.flags))
    listed = rows(found.result.answer, here.thresholds, here.record)
    left, right = st.columns([1, 1], gap="large")
    with left:
        show_picture(here.desk, chosen, found.result, found.maps, listed)
    with right:
        st.html(draw("classes", "Called", [row for row in listed if row.is_called]))
        st.html(draw("classes", "Not called", [row for row in listed if not row.is_called]))


def show_picture(
    desk: Desk, chosen: Chosen, asked: Asked, maps: dict[str, NDArray[np.float64]], listed: list[Row]
) -> None:
    """The image, under the map of a class that the visitor picks; first of the class that heads the list."""
    picker, switch = st.columns([3, 2], vertical_alignment="bottom")
    name = picker.selectbox("Heat map of", [row.name for row in listed], key=f"class of {chosen.key}")
    layer = Layer(asked.picture.shown, "the X-ray", None)
    if switch.toggle("Show the heat map", value=True, key="is mapped"):
        layer = mapped(desk, asked.picture, name, maps)
    st.html(draw("picture", data_url(layer.pixels), f"{chosen.name}: {layer.alternative}", chosen.name, chosen.truth))
    if layer.remark is not None:
        st.html(draw("legend", layer.remark))
    st.html(draw("meaning", next(row.meaning for row in listed if row.name == name)))


def mapped(desk: Desk, picture: Picture, name: str, maps: dict[str, NDArray[np.float64]]) -> Layer:
    """The picture under the map of the class `name`, which is asked for once and kept in `maps`."""
    try:
        if name not in maps:
            maps[name] = desk.map(picture, name)
    except InputError as error:
        return Layer(picture.shown, "the X-ray", f"There is no heat map: {error}.")
    if not maps[name].any():
        return Layer(picture.shown, "the X-ray", f"Nothing in the image speaks for {name}.")
    return Layer(overlay(picture.shown, maps[name]), f"the X-ray under the heat map of {name}", "")


main()
