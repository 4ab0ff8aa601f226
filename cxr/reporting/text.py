"""Formatting of numbers, parameters and names."""

from cxr.evaluation.schema import Interval


def class_title(name: str) -> str:
    """Return the name of a class for headings and tables: `Pleural thickening` for `Pleural_Thickening`."""
    return name.replace("_", " ").capitalize()


def attribute_title(name: str) -> str:
    """Return the name of an attribute of patients and images, as in `Subgroups`."""
    return "view position" if name == "view" else name


def format_number(value: float | None, digits: int = 3) -> str:
    """Format a metric; None is undefined."""
    return "undefined" if value is None else f"{value:.{digits}f}"


def format_ci(interval: Interval, digits: int = 3) -> str:
    """Format a value with its confidence interval: `0.871 (0.840 to 0.897)`."""
    value, low, high = interval.value, interval.low, interval.high
    if value is None:
        return "undefined"
    bounds = "no interval" if low is None or high is None else f"{low:.{digits}f} to {high:.{digits}f}"
    return f"{value:.{digits}f} ({bounds})".replace("-", "−")


def format_param(value: object) -> str:
    """Format the value of a parameter as in params.yaml, lists on one line."""
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
