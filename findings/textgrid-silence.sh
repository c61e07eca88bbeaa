#!/usr/bin/env bash
# Of one TextGrid tier with four intervals, three libraries read four, two and two, and two of
# them change labels.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv --without-pip "$dir/venv"
python3 -m pip --python "$dir/venv" install -q --no-compile --disable-pip-version-check textgrid==1.6.1 tgt==1.5 praatio==6.2.2 numpy==2.4.6
cd "$dir"
venv/bin/python - <<'PY'
from importlib.metadata import version
from pathlib import Path

import textgrid, tgt
from praatio import textgrid as praat

CELLS = [(0, 1, ""), (1, 1.5, "so"), (1.5, 2, " "), (2, 3, " yes ")]
head = (
    'File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0\nxmax = 3\ntiers? <exists>\n'
    'size = 1\nitem []:\n    item [1]:\n        class = "IntervalTier"\n        name = "words"\n'
    "        xmin = 0\n        xmax = 3\n        intervals: size = 4\n"
)
cells = "".join(
    f'        intervals [{i}]:\n            xmin = {a}\n            xmax = {b}\n            text = "{t}"\n'
    for i, (a, b, t) in enumerate(CELLS, 1)
)
Path("a.TextGrid").write_text(head + cells)
first = [(i.minTime, i.maxTime, i.mark) for i in textgrid.TextGrid.fromFile("a.TextGrid")[0]]
second = [(i.start_time, i.end_time, i.text) for i in tgt.io.read_textgrid("a.TextGrid").tiers[0]]
tier = praat.openTextgrid("a.TextGrid", includeEmptyIntervals=False).getTier("words")
third = [tuple(i) for i in tier.entries]
for name, got in (("textgrid", first), ("tgt", second), ("praatio", third)):
    print(f"{name} {version(name)}: {got}")
assert first == CELLS, "textgrid has changed"
assert second == third == [(1, 1.5, "so"), (2, 3, "yes")], "tgt or praatio has changed"
PY
