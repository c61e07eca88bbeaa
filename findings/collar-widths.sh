#!/usr/bin/env bash
# The collar of a diarization error rate is the whole width around a boundary in pyannote.metrics, and half
# of it in spy-der: the same number gives two rates, half of it in one gives the other's.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv --without-pip "$dir/venv"
python3 -m pip --python "$dir/venv" install -q --no-compile --disable-pip-version-check numpy==2.4.6 pyannote.core==6.1.0 pyannote.metrics==4.2.0 spy-der==0.4.1 simpleder==0.0.8
cd "$dir"
venv/bin/python - <<'PY'
import warnings
from importlib.metadata import version

import simpleder
import spyder
from pyannote.core import Annotation, Segment
from pyannote.metrics.diarization import DiarizationErrorRate

warnings.filterwarnings("ignore", message="'uem' was")
truth = [("Anna", 0.0, 4.0), ("Ben", 3.0, 6.0), ("Anna", 7.0, 9.0)]
guess = [("x", 0.1, 3.2), ("y", 3.2, 6.2), ("x", 6.8, 9.0)]


def annotation(turns):
    result = Annotation()
    for index, (who, start, end) in enumerate(turns):
        result[Segment(start, end), index] = who
    return result


def pyannote(collar):
    return round(DiarizationErrorRate(collar=collar)(annotation(truth), annotation(guess)), 4)


def other(collar):
    return round(spyder.DER(truth, guess, collar=collar).der, 4)


print("pyannote.metrics", version("pyannote.metrics"), "spy-der", version("spy-der"), "simpleder", version("simpleder"))
print("without a collar:", pyannote(0.0), other(0.0), round(simpleder.DER(truth, guess), 4))
print("collar 0.25:", pyannote(0.25), "and", other(0.25), "; pyannote with 0.5:", pyannote(0.5))
assert pyannote(0.0) == other(0.0) == round(simpleder.DER(truth, guess), 4), "the behavior has changed"
assert pyannote(0.25) != other(0.25) == pyannote(0.5), "the behavior has changed"
PY
