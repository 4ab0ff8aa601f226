import pytest
import yaml

from cxr.core.errors import InputError
from cxr.core.params import read_params
from cxr.params import Params
from tests.fixtures.project import ROOT
from tools.parameters import readers, table, with_table

VALUES = read_params(Params, ROOT / "params.yaml")


def test_the_page_holds_the_table() -> None:
    text = (ROOT / "docs/parameters.md").read_text(encoding="utf-8")
    assert with_table(text, table(VALUES)) == text, "run `python -m tools.parameters --write`"


def test_every_parameter_has_a_row_that_says_what_it_is() -> None:
    names = []
    for name, value in yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8")).items():
        names += [f"{name}.{inner}" for inner in value] if isinstance(value, dict) else [name]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table(VALUES).splitlines()[2:]]
    assert sorted(row[0].strip("`") for row in rows) == sorted(names)
    assert all(len(row[3]) > 10 for row in rows)
    assert not any("None" in row[3] for row in rows)


def test_a_row_shows_value_readers_and_choices() -> None:
    rows = table(VALUES)
    assert "| `lr_schedule` | cosine_restarts | train |" in rows
    assert "(`cosine_restarts`, `cosine`)" in rows
    assert "| `batch_size` | 32 | train, evaluate |" in rows
    assert readers("split.method") == ["split"]


def test_a_text_without_marks_is_refused() -> None:
    with pytest.raises(InputError, match="no line <!-- parameters -->"):
        with_table("nothing", "rows")
