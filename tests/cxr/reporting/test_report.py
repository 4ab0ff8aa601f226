import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from pydantic import BaseModel

from cxr.core.labels import CLASSES
from cxr.evaluation.schema import Duplicates
from cxr.reporting.report import render, write_report
from cxr.reporting.run import Run
from cxr.reporting.text import class_title
from tests.fixtures.reported import PAIR, WITHOUT_POSITIVES, make_run


class Page(HTMLParser):
    """A parsed page: its elements and all text; raises AssertionError if an element is not closed."""

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

    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


@pytest.fixture(scope="module")
def run() -> Run:
    return make_run()


@pytest.fixture(scope="module")
def html(run: Run) -> str:
    return render(run)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def with_metrics(run: Run, **changes: BaseModel) -> Run:
    return replace(run, metrics=run.metrics.model_copy(update=changes))


def test_the_same_run_gives_the_same_bytes(html: str) -> None:
    assert render(make_run()) == html


def test_the_file_has_the_page_and_is_small(run: Run, html: str, tmp_path: Path) -> None:
    write_report(run, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_bytes() == html.encode()
    assert len(html.encode()) < 5_000_000


def test_every_auroc_is_that_of_the_metrics(run: Run, html: str) -> None:
    for name in CLASSES:
        (row,) = re.findall(rf'<tr id="auroc-{name.replace(" ", "_")}">(.*?)</tr>', html, re.DOTALL)
        auroc = run.metrics.intervals.auroc[name]
        assert class_title(name) in row
        if name == WITHOUT_POSITIVES:
            assert auroc.value is None
            assert "undefined" in row
        else:
            assert f">{auroc.value:.3f} ({auroc.low:.3f} to {auroc.high:.3f})<" in row


def test_classes_are_ordered_by_falling_auroc_with_undefined_ones_last(html: str, run: Run) -> None:
    order = [name.replace("_", " ") for name in re.findall(r'<tr id="auroc-(.*?)">', html)]
    values = {name.replace("_", " "): run.metrics.intervals.auroc[name].value or 0 for name in CLASSES}
    assert order[-1] == WITHOUT_POSITIVES
    assert order[:-1] == sorted(order[:-1], key=lambda name: -values[name])


def test_undefined_values_are_shown_as_a_word(page: Page) -> None:
    # In attributes and in text. Lower-case "none" is a word: an image may have no labels.
    shown = page.text() + " ".join(
        str(value) for _, attributes in page.elements for value in attributes.values() if value
    )
    assert re.findall(r"\b(?:nan|NaN|None|null|inf)\b", shown) == []
    assert "undefined" in shown


def test_the_page_loads_nothing_else(page: Page, html: str) -> None:
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


def test_links_lead_to_sections(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {(link["href"] or "")[1:] for link in page.all("a")}
    assert targets == {attributes["id"] for attributes in page.all("section")}


def test_figures_and_tables_are_accessible(page: Page, html: str) -> None:
    for attributes in page.all("svg"):
        named = attributes.get("role") == "img" and attributes.get("aria-label")
        assert named or attributes.get("aria-hidden") == "true"
    assert len(page.all("caption")) == len(page.all("table"))
    assert {head.get("scope") for head in page.all("th")} == {"col", "row"}
    assert page.all("html")[0]["lang"] == "en"
    assert html.count("<h1>") == 1


@pytest.mark.parametrize("synthetic", [True, False])
def test_synthetic_images_are_named_at_the_top(synthetic: bool) -> None:
    html = render(make_run(synthetic=synthetic))
    text = Page(html).text()
    assert ("Synthetic images." in text.partition("The mean AUROC is")[0]) == synthetic
    assert ("synthetic" in text.lower()) == synthetic
    assert "Not for clinical use." in text


HOSTILE = """<script>alert(1)</script>"'&amp;{{ 7 * 7 }}.png"""


def test_hostile_names_are_escaped(run: Run) -> None:
    hostile = replace(
        with_metrics(run, duplicates=Duplicates(pairs=[PAIR.model_copy(update={"image_a": HOSTILE})])),
        test=run.test._replace(table=run.test.table.assign(image=HOSTILE)),
        training=run.training.assign(member=HOSTILE),
        members={HOSTILE: {**next(iter(run.members.values())), "model": HOSTILE}},
    )
    page = Page(render(hostile))
    assert page.all("script") == []
    assert HOSTILE in page.texts
    assert f"Image {HOSTILE}" in [figure.get("aria-label") for figure in page.all("svg")]
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)


def test_data_models_parameters_and_libraries_are_listed(page: Page, run: Run) -> None:
    text = page.text()
    assert "0.00123" in text
    assert "tta.hflip true" in text
    assert "loss.focal_gamma 0.0" in text
    assert "Ensemble of 2 networks: resnet10t (seed 1, 32 × 32 pixels)" in text
    for part in ("train", "val", "test"):
        images = run.sample[run.sample["split"] == part]
        assert str(images["Mass"].sum()) in text
    assert re.search(r"torch \d+\.\d+", text)


def test_a_run_without_boxes_near_duplicates_or_a_second_network() -> None:
    run = with_metrics(make_run(boxes=False, members=1), duplicates=Duplicates(pairs=[]))
    text = Page(render(run)).text()
    assert "No test image has a bounding box" in text
    assert "There are no near-duplicates in different splits." in text
    assert "The ensemble has one member" in text


def test_missing_saliency_maps_are_explained(run: Run) -> None:
    assert run.examples is not None
    count = len(run.examples.chosen)
    examples = run.examples._replace(maps=[None] * count, problem="maps need <one> grid")
    text = Page(render(replace(run, examples=examples))).text()
    assert "There are no saliency maps: maps need <one> grid." in text
    assert text.count("No saliency map.") == count


def test_networks_that_were_not_evaluated_are_left_out(run: Run, html: str) -> None:
    other = run.training[run.training["member"] == "resnet10t-1"].assign(member="resnet10t-9")
    assert render(replace(run, training=pd.concat([run.training, other]))) == html


def test_boxes_without_scores_are_explained(run: Run) -> None:
    scores = run.metrics.localisation
    assert scores is not None
    unscored = scores.model_copy(update={"all": scores.all.model_copy(update={"scores": {}}), "classes": {}})
    text = Page(render(with_metrics(run, localisation=unscored))).text()
    assert "There are 8 bounding boxes on test images, but no saliency maps" in text


def test_a_map_of_zeros_is_explained_and_boxes_are_drawn_at_their_positions(run: Run) -> None:
    assert run.examples is not None
    first = run.examples.chosen[0]
    box = run.boxes.iloc[:1].assign(row=first.row, **{"class": CLASSES[first.column]})
    page = Page(render(replace(run, boxes=box)))
    assert page.text().count("The saliency map is zero everywhere.") == 1
    assert page.all("rect") == [{"x": "0.2500", "y": "0.5000", "width": "0.2500", "height": "0.1250"}]
