"""Write the rows of node help pages that describe options of ``lipsync_core``.

``python docs/write_node_pages.py`` renews the tables of inputs in ``lipsync_nodes/web/docs`` from
the fields of the option dataclasses; a test compares them. Rows of other inputs are left alone.
"""

import re
import sys
from dataclasses import MISSING
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from lipsync_core.options import Blend, Cut, Encoding, Restore  # noqa: E402
from lipsync_core.runtime.options import OptionField, option_fields  # noqa: E402

PAGES = ROOT / "lipsync_nodes" / "web" / "docs"
BY_HAND = {"colour_match"}  # two inputs of the node for one field


def fields_of_pages() -> dict[str, list[OptionField]]:
    """Return the fields that each help page describes."""
    return {
        "LipSync_BlendSettings": option_fields(Blend),
        "LipSync_LoadFaceRestorer": option_fields(Restore, ("strength", "mask")),
        "LipSync_Wav2LipGenerate": [
            *option_fields(Cut, ("longer",)),
            *option_fields(Encoding, ("crf",)),
        ],
    }


def renew_page(text: str, fields: list[OptionField]) -> str:
    """Replace the rows of ``fields`` in the first table of a page, and append missing ones."""
    start = text.index("|---|---|\n") + len("|---|---|\n")
    end = text.index("\n\n", start) + 1
    rows = {row.split("`")[1]: row for row in text[start:end].splitlines()}
    for field in fields:
        if field.field not in BY_HAND:
            rows[field.node_name] = make_row(field)
    return text[:start] + "\n".join(rows.values()) + "\n" + text[end:]


def make_row(field: OptionField) -> str:
    """Make the row of one input: what it does, its range and its default."""
    option = field.option
    about = option.tooltip
    for choice in field.choices:
        about = re.sub(rf"(?<!\w){choice}(?=[:,] )", f"**{choice}**", about)
    parts = ["Advanced. " if option.advanced else "", about]
    if option.maximum is not None:
        parts.append(f" From {option.minimum:g} to {option.maximum:g}.")
    if field.nullable:
        parts.append(" 0: not used.")
    elif field.kind is bool:
        parts.append(f" Default: {'on' if field.default else 'off'}.")
    elif field.default is not MISSING:
        parts.append(f" Default: {_shown(field.default)}.")
    return f"| `{field.node_name}` | {''.join(parts)} |"


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Write all pages."""
    for name, fields in fields_of_pages().items():
        path = PAGES / f"{name}.md"
        path.write_text(renew_page(path.read_text(encoding="utf-8"), fields), encoding="utf-8")


if __name__ == "__main__":
    main()
