"""Help pages of nodes: their rows about options are those of the option dataclasses."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("node_pages", ROOT / "docs/write_node_pages.py")
assert _spec is not None and _spec.loader is not None
pages = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(pages)


@pytest.mark.parametrize("name", pages.fields_of_pages())
def test_help_pages_are_up_to_date(name: str) -> None:
    text = (pages.PAGES / f"{name}.md").read_text(encoding="utf-8")
    assert pages.renew_page(text, pages.fields_of_pages()[name]) == text


def test_a_new_option_gets_a_row() -> None:
    (field,) = pages.option_fields(pages.Blend, ("steady",))
    text = "## Inputs\n\n| name | what it is |\n|---|---|\n| `mask` | Old. |\n\n## Outputs\n"
    renewed = pages.renew_page(text, [field])
    assert renewed.count("| `") == 2 and "From 0 to 1. Default: 0." in renewed
