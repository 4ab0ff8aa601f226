from cxr.evaluation.schema import Interval
from cxr.reporting.text import attribute_title, class_title, format_ci, format_number, format_param


def test_undefined_values_and_missing_intervals_are_named() -> None:
    assert format_ci(Interval(value=-0.25, low=-0.5, high=0), 2) == "−0.25 (−0.50 to 0.00)"
    assert format_ci(Interval(value=0.25, low=None, high=None), 2) == "0.25 (no interval)"
    assert format_ci(Interval(value=None, low=None, high=None)) == "undefined"
    assert (format_number(0.5), format_number(None)) == ("0.500", "undefined")


def test_parameters_are_formatted_as_in_yaml() -> None:
    assert [format_param(value) for value in (True, 0.002, [1, 2], [])] == ["true", "0.002", "1, 2", "none"]


def test_titles_of_classes_and_attributes() -> None:
    assert class_title("Pleural_Thickening") == "Pleural thickening"
    assert [attribute_title(name) for name in ("view", "sex")] == ["view position", "sex"]
