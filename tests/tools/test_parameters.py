import pytest
import yaml

from cxr.core.errors import InputError
from cxr.core.params import read_params
from cxr.params import Params
from tests.fixtures.project import ROOT
from tools.parameters import markdown_table, replace_table, stages_of

VALUES = read_params(Params, ROOT / "params.yaml")


def test_the_page_contains_the_table() -> None:
    text = (ROOT / "docs/parameters.md").read_text(encoding="utf-8")
    assert replace_table(text, markdown_table(VALUES)) == text, "run `python -m tools.parameters --write`"


def test_every_parameter_has_a_row_with_a_description() -> None:
    names = []
    for name, value in yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8")).items():
        names += [f"{name}.{inner}" for inner in value] if isinstance(value, dict) else [name]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in markdown_table(VALUES).splitlines()[2:]]
    assert sorted(row[0].strip("`") for row in rows) == sorted(names)
    assert all(len(row[3]) > 10 for row in rows)
    assert not any("None" in row[3] for row in rows)


def test_a_row_has_value_stages_and_choices() -> None:
    rows = markdown_table(VALUES)
    assert "| `lr_schedule` | cosine_restarts | train |" in rows
    assert "(`cosine_restarts`, `cosine`)" in rows
    assert "| `batch_size` | 32 | train, evaluate |" in rows
    assert stages_of("split.method") == ["split"]


def test_a_text_without_markers_is_rejected() -> None:
    with pytest.raises(InputError, match="no line <!-- parameters -->"):
        replace_table("nothing", "rows")
