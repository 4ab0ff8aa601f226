import math
import re
from base64 import b64decode
from html.parser import HTMLParser
from io import BytesIO
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import BaseModel

from cxr.core.errors import InputError
from cxr.core.labels import CLASSES, FINDINGS
from cxr.evaluation.schema import Duplicates, Interval
from cxr.inference.saliency import METHODS, layer_cam
from cxr.models.classifier import Architecture, build_classifier
from cxr.reporting.examples import choose_examples, collect_examples, image_data_url, overlay_data_url
from cxr.reporting.published import BY_FINDING, OFFICIAL_TEST, OurData, about_our_data, differences
from cxr.reporting.report import Run, full_name, render, write_report
from cxr.reporting.svg import Axis, Line, Panel, draw_interval, draw_panel, fitting_axis, format_ci, share_axis, tag
from tests.fixtures.reported import WITHOUT_POSITIVES, make_run


class Page(HTMLParser):
    """The page as a strict reader sees it: its elements, which of them are open, and all text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "link"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def run() -> Run:
    return make_run()


@pytest.fixture(scope="module")
def html(run: Run) -> str:
    return render(run)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def text_of(page: Page) -> str:
    return re.sub(r"\s+", " ", " ".join(page.texts))


def with_metrics(run: Run, **changes: BaseModel) -> Run:
    return run._replace(metrics=run.metrics.model_copy(update=changes))


def test_the_same_run_gives_the_same_bytes(html: str) -> None:
    assert render(make_run()) == html


def test_the_file_is_the_page_and_small(run: Run, html: str, tmp_path: Any) -> None:
    write_report(run, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_bytes() == html.encode()
    assert len(html.encode()) < 5_000_000


def test_every_auroc_is_the_metrics_own(run: Run, html: str) -> None:
    for name in CLASSES:
        (row,) = re.findall(rf'<tr id="auroc-{name.replace(" ", "_")}">(.*?)</tr>', html, re.DOTALL)
        entry = run.metrics.intervals.auroc[name]
        assert full_name(name) in row
        if name == WITHOUT_POSITIVES:
            assert entry.value is None
            assert "not defined" in row
        else:
            assert f">{entry.value:.3f} ({entry.low:.3f} to {entry.high:.3f})<" in row


def test_classes_stand_by_falling_auroc_and_undefined_ones_last(html: str, run: Run) -> None:
    order = [name.replace("_", " ") for name in re.findall(r'<tr id="auroc-(.*?)">', html)]
    values = {name.replace("_", " "): run.metrics.intervals.auroc[name].value for name in CLASSES}
    assert order[-1] == WITHOUT_POSITIVES
    assert order[:-1] == sorted(order[:-1], key=lambda name: -values[name])


def test_nothing_undefined_shows_as_a_computer_says_it(page: Page) -> None:
    # No word: "None" alone may be a label's; so neither in attributes nor in text.
    shown = text_of(page) + " ".join(
        str(value) for _, attributes in page.elements for value in attributes.values() if value
    )
    assert re.findall(r"\b(?:nan|NaN|None|null|undefined|inf)\b", shown) == []
    assert "not defined" in shown


def test_the_page_asks_for_nothing(page: Page, html: str) -> None:
    assert not {"script", "iframe", "object", "embed", "base", "form"} & {name for name, _ in page.elements}
    links = [
        value or ""
        for _, attributes in page.elements
        for name, value in attributes.items()
        if name in ("href", "src", "srcset")
    ]
    assert all(link.startswith(("#", "data:")) for link in links)
    assert "http" not in html.replace("http-equiv", "")
    assert not re.search(r"@import|url\(", html)


def test_links_lead_to_places_that_are_there(page: Page) -> None:
    places = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(places) == len(set(places))
    targets = {(link["href"] or "")[1:] for link in page.all("a")}
    assert len(targets) == 12
    assert targets <= set(places)


def test_figures_and_tables_have_names(page: Page, html: str) -> None:
    for attributes in page.all("svg"):
        named = attributes.get("role") == "img" and attributes.get("aria-label")
        assert named or attributes.get("aria-hidden") == "true"
    assert len(page.all("caption")) == len(page.all("table"))
    assert {head.get("scope") for head in page.all("th")} == {"col", "row"}
    assert page.all("html")[0]["lang"] == "en"
    assert html.count("<h1>") == 1


@pytest.mark.parametrize("synthetic", [True, False])
def test_synthetic_images_are_called_that_at_the_top(synthetic: bool) -> None:
    page = Page(render(make_run(synthetic=synthetic)))
    body = text_of(page).partition("report of a run")[2]
    assert ("Synthetic images." in body.partition("Over the 14 findings")[0]) == synthetic
    assert ("synthetic" in body.lower()) == synthetic
    assert "Not for clinical use." in body


HOSTILE = """<script>alert(1)</script>"'&amp;{{ 7 * 7 }}.png"""


def test_hostile_names_are_shown_and_never_run(run: Run) -> None:
    pairs = [pair.model_copy(update={"image_a": HOSTILE}) for pair in run.metrics.duplicates.pairs]
    table = run.predicted.table.assign(image=HOSTILE)
    hostile = with_metrics(run, duplicates=Duplicates(pairs=pairs))._replace(
        predicted=run.predicted._replace(table=table),
        curves=run.curves.assign(member=HOSTILE),
        networks={HOSTILE: {**next(iter(run.networks.values())), "model": HOSTILE}},
    )
    page = Page(render(hostile))
    assert page.all("script") == []
    assert HOSTILE in page.texts
    assert f"Image {HOSTILE}" in [figure.get("aria-label") for figure in page.all("svg")]
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)


def test_what_was_run_is_told(page: Page, run: Run) -> None:
    text = text_of(page)
    assert "0.00123" in text
    assert "tta.hflip true" in text
    assert "loss.focal_gamma 0.0 how much less an image counts" in text
    assert "An ensemble of 2 networks: resnet10t (seed 1)" in text
    for part in ("train", "val", "test"):
        ours = run.sample[run.sample["split"] == part]
        assert str(ours["Mass"].sum()) in text
    assert re.search(r"torch \d+\.\d+", text)


def test_a_run_without_boxes_twins_or_a_second_network_says_so() -> None:
    run = with_metrics(make_run(boxes=False, members=1), duplicates=Duplicates(pairs=[]))
    text = text_of(Page(render(run)))
    assert "No test image has a box" in text
    assert "No two images in different splits look like one film." in text
    assert "There is one network" in text


def test_a_run_whose_maps_could_not_be_made_says_why(run: Run) -> None:
    count = len(run.samples.chosen)
    story = "There are no maps: maps need <one> grid."
    page = Page(render(run._replace(samples=run.samples._replace(maps=[None] * count, story=story))))
    assert story in text_of(page)
    assert text_of(page).count("No map.") == count


def test_a_network_that_was_trained_and_not_evaluated_is_not_told_of(run: Run, html: str) -> None:
    other = run.curves[run.curves["member"] == "resnet10t-1"].assign(member="resnet10t-9")
    assert render(run._replace(curves=pd.concat([run.curves, other]))) == html


def test_boxes_that_were_not_scored_are_told_of(run: Run) -> None:
    scores = run.metrics.localisation
    unscored = scores.model_copy(update={"all": scores.all.model_copy(update={"scores": {}}), "classes": {}})
    assert "could not be scored" in text_of(Page(render(with_metrics(run, localisation=unscored))))


def test_an_empty_map_is_called_empty_and_a_box_is_drawn_where_it_is(run: Run) -> None:
    first = run.samples.chosen[0]
    box = run.boxes.iloc[:1].assign(row=first.place, **{"class": CLASSES[first.column]})
    page = Page(render(run._replace(boxes=box)))
    assert text_of(page).count("The map is empty") == 1
    assert page.all("rect") == [{"x": "0.2500", "y": "0.5000", "width": "0.2500", "height": "0.1250"}]


def test_samples_are_the_extremes_and_none_is_there_twice() -> None:
    random = np.random.default_rng(0)
    labels = (random.random((60, 15)) < 0.3).astype(np.uint8)
    probabilities, thresholds = random.random((60, 15)), np.full(15, 0.5)
    chosen = choose_examples(labels, probabilities, thresholds)
    assert [one.kind for one in chosen] == ["right", "right", "false alarm", "missed", "unsure", "unsure"]
    assert len({one.place for one in chosen}) == 6
    of_findings = [
        (probabilities[place, column], labels[place, column])
        for place in range(60)
        for column, name in enumerate(CLASSES)
        if name in FINDINGS
    ]
    first, false_alarm, missed = (probabilities[one.place, one.column] for one in (chosen[0], chosen[2], chosen[3]))
    assert first == max(value for value, label in of_findings if label)
    # An image that is taken already gives way to the next.
    taken = {one.place for one in chosen[:2]}
    rest = [
        (probabilities[place, column], labels[place, column])
        for place in range(60)
        for column, name in enumerate(CLASSES)
        if name in FINDINGS and place not in taken
    ]
    assert false_alarm == max(value for value, label in rest if not label)
    others = {*taken, chosen[2].place}
    assert missed == min(
        probabilities[place, CLASSES.index(name)]
        for place in range(60)
        for name in FINDINGS
        if place not in others and labels[place, CLASSES.index(name)]
    )


def test_few_images_give_few_samples() -> None:
    chosen = choose_examples(np.ones((1, 15), np.uint8), np.full((1, 15), 0.9), np.full(15, 0.5))
    assert [(one.kind, one.place) for one in chosen] == [("right", 0)]


def png_pixels(url: str | None) -> Any:
    assert url is not None
    kind, _, content = url.partition(";base64,")
    assert kind == "data:image/png"
    return np.asarray(Image.open(BytesIO(b64decode(content))), np.int64)


def test_the_overlay_is_orange_where_the_map_is_and_gray_elsewhere() -> None:
    gray, heat = np.full((32, 32), 100, np.uint8), np.zeros((32, 32))
    heat[20:28, 4:12] = 3.0
    shown, plain = png_pixels(overlay_data_url(gray, heat)), png_pixels(image_data_url(gray))
    assert (plain == 100).all()
    assert (shown[8, 8], shown[200, 200]) == (pytest.approx(100), pytest.approx(100))
    red, green, blue = shown[192, 64]
    assert red > green > blue
    assert overlay_data_url(gray, heat * 0) is None


def test_a_network_that_cannot_be_mapped_costs_only_the_maps(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise InputError("maps need one square grid of features")

    monkeypatch.setattr("cxr.reporting.examples.METHODS", dict.fromkeys(METHODS, refuse))
    images = np.zeros((len(run.predicted.labels), 32, 32), np.uint8)
    classifier = build_classifier(Architecture("test_resnet", 1, 32), None, 0, 0)
    samples = collect_examples(run.predicted, images, np.arange(len(images)), [classifier])
    assert samples.maps == [None] * len(samples.chosen)
    assert samples.story == "There are no maps: maps need one square grid of features."


def test_maps_of_samples_are_of_their_own_images_and_classes(run: Run) -> None:
    torch.manual_seed(0)
    classifier = build_classifier(Architecture("test_resnet", 1, 32), None, 0, 0)
    images = np.random.default_rng(1).integers(0, 256, (2 * len(run.predicted.labels), 32, 32)).astype(np.uint8)
    rows = np.arange(len(images))[::-2]
    samples = collect_examples(run.predicted, images, rows, [classifier])
    for chosen, pixels, heat in zip(samples.chosen, samples.pixels, samples.maps, strict=True):
        assert np.array_equal(pixels, images[rows[chosen.place]])
        expected = layer_cam(classifier, torch.from_numpy(pixels)[None, None] / 255, torch.tensor([chosen.column]))
        assert heat is not None
        np.testing.assert_allclose(heat, expected[0].numpy(), atol=1e-5)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.integers(2, 6))
def test_an_axis_holds_its_values_between_round_ticks(values: list[float], most: int) -> None:
    axis = fitting_axis("x", values, most)
    assert axis.low < axis.high
    assert 2 <= len(axis.ticks) <= most + 1
    assert (axis.low, axis.high) == (axis.ticks[0], axis.ticks[-1])
    slack = 1e-6 * (axis.high - axis.low)
    assert axis.low - slack <= min(values)
    assert max(values) <= axis.high + slack


def test_an_axis_of_nothing_finite_is_that_of_shares() -> None:
    assert fitting_axis("x", [math.nan, math.inf])[1:3] == (0, 1)


def test_a_line_is_cut_where_a_number_is_missing() -> None:
    unit = share_axis("x")
    drawn = draw_panel(Panel(unit, unit, [Line([0, 0.5, 1, 1], [0, math.nan, 0.5, 1])]), "name")
    (path,) = re.findall(r'class="line line-0" d="(.*?)"', drawn)
    assert re.findall("[ML]", path) == ["M", "M", "L"]


def test_an_interval_is_drawn_where_the_axis_says() -> None:
    axis = Axis("x", 0, 1, (0, 1))
    drawn = draw_interval(Interval(value=0.5, low=0, high=1), axis)
    assert 'd="M10.0 11.0H190.0' in drawn
    assert "M97.0 8.0h6v6h-6z" in drawn
    assert 'aria-label="0.500 (0.000 to 1.000)"' in drawn
    nothing = draw_interval(Interval(value=None, low=None, high=None), axis)
    assert 'aria-label="not defined"' in nothing
    assert "mark" not in nothing
    assert format_ci(Interval(value=0.25, low=None, high=None), 2) == "0.25 (no interval)"


@given(st.text())
def test_elements_escape_what_they_are_given(text: str) -> None:
    class Reader(HTMLParser):
        seen: tuple[str, Any] = ("", None)

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.seen = (tag, attrs)

    reader = Reader()
    reader.feed(tag("g", text, aria_label=text))
    assert reader.seen == ("g", [("aria-label", text)])


def test_published_figures_by_finding_have_the_means_that_their_papers_are_known_for() -> None:
    assert all(set(other.auroc) == set(FINDINGS) for other in BY_FINDING)
    means = {other.name: np.mean(list(other.auroc.values())) for other in BY_FINDING}
    assert means["CheXNet"] == pytest.approx(0.841, abs=5e-4)


def test_a_split_is_official_where_every_image_is_on_its_side_of_it() -> None:
    sample = pd.DataFrame({"image": ["a", "b", "c"], "split": ["train", "val", "test"]})
    lists = pd.DataFrame({"image": ["a", "b", "c"], "list": ["train_val", "train_val", "test"]})
    assert about_our_data(sample, lists, is_synthetic=False) == (False, True, 1, 1)
    assert not about_our_data(sample, lists[:0], is_synthetic=False).is_official
    assert not about_our_data(sample, lists[1:], is_synthetic=False).is_official
    assert not about_our_data(sample, lists.assign(list="test"), is_synthetic=False).is_official


REAL = OurData(is_synthetic=False, is_official=True, train_images=10, test_images=OFFICIAL_TEST)


@pytest.mark.parametrize(
    ("ours", "official", "random"),
    [
        (REAL._replace(is_synthetic=True), "synthetic", "synthetic"),
        (REAL._replace(is_official=False), "not those of NIH's official split", "random draw"),
        (REAL._replace(test_images=357), "357 of the 25,596", "another population"),
        (REAL, "", "another population"),
    ],
)
def test_figures_compare_only_on_the_same_test_images(ours: OurData, official: str, random: str) -> None:
    reasons = differences(ours, "official")
    assert official in " ".join(reasons)
    assert bool(reasons) == bool(official)
    assert random in " ".join(differences(ours, "random"))
