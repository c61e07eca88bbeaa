"""What the command line answers before torch is loaded."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"torch", "av", "cv2", "numpy", "PIL", "scipy", "huggingface_hub"}
# Runs many command lines in one process: the first that loads a heavy module would show in all.
SCRIPT = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from lipsync_core.cli.main import main
for line in json.loads(sys.argv[1]):
    sys.argv, code, said = ["lipsync", *line], 0, io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        try:
            main()
        except SystemExit as stop:
            code = stop.code
    print(json.dumps([code or 0, said.getvalue(), sorted(sys.modules)]))
"""


def answers(lines: list[list[str]]) -> list[tuple[int, str, set[str]]]:
    """Exit code, output, and loaded modules after each command line."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(lines)],
        capture_output=True, text=True, encoding="utf-8", timeout=300, check=True,
    )  # fmt: skip
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return [(code, text, set(modules)) for code, text, modules in found]


def test_help_and_typing_errors_are_answered_without_torch(tmp_path: Path) -> None:
    video, speech, table = tmp_path / "face.mp4", tmp_path / "speech.wav", tmp_path / "jobs.csv"
    for file in (video, speech):
        file.write_bytes(b"not read")
    table.write_text("face,audio,out\nface.mp4,speech.wav,\n")
    inputs = [str(video), str(speech)]
    cases = [
        (["--help"], 0, "COMMAND"),
        *[([name, "--help"], 0, "Usage") for name in ("dub", "batch", "score", "mask", "study")],
        (["models", "list"], 0, "bundled"),
        (["dubb"], 2, "dubb"),
        (["dub", "nothere.mp4", str(speech)], 4, "nothere.mp4"),
        (["dub", str(video), "nothere.wav"], 4, "nothere.wav"),
        (["dub", str(video)], 2, "AUDIO"),
        (["dub", *inputs, "-o", str(tmp_path / "out.gif")], 4, ".gif"),
        (["dub", *inputs, "-o", str(tmp_path / "no" / "out.mp4")], 4, "does not exist"),
        (["dub", *inputs, "-o", str(video)], 4, "face.mp4"),
        (["dub", *inputs, "--feather", "3"], 2, "feather"),
        (["dub", *inputs, "--face", "lefft"], 2, "lefft"),
        (["dub", *inputs, "--pads", "1 2"], 2, "pads"),
        (["dub", *inputs, "--start", "5", "--end", "4"], 2, "end it later"),
        (["dub", *inputs, "--model", "mni"], 5, "mni"),
        (["dub", *inputs, "--speakers", "nothere.csv"], 2, "nothere.csv"),
        (["mask", "nothere.mp4", "-o", str(tmp_path / "m.png")], 4, "nothere.mp4"),
        (["score", "nothere.mp4"], 4, "nothere.mp4"),
        (["score", str(video), "--plot", str(tmp_path / "p.gif")], 4, ".gif"),
        (["speakers", "nothere.mp4"], 4, "nothere.mp4"),
        (["quality", str(video), "nothere.mp4"], 4, "nothere.mp4"),
        (["batch", "nothere.csv"], 2, "nothere.csv"),
        (["batch", str(table)], 2, "no out"),
        (["bench", "--root", "nothere"], 1, "nothere"),
        (["expert", "nothere"], 1, "nothere"),
        (["models", "info", "nothere"], 5, "nothere"),
        (["models", "convert", "nothere", "x.safetensors"], 5, "nothere"),
    ]
    for (line, code, word), (got, text, modules) in zip(
        cases, answers([line for line, _, _ in cases]), strict=True
    ):
        assert got == code and word in " ".join(text.split()), (line, got, text)
        assert modules.isdisjoint(HEAVY), (line, HEAVY & modules)


@pytest.mark.slow
def test_loading_the_network_does_not_load_sympy() -> None:
    """On the meta device many functions of torch import it, which takes seconds."""
    code = (
        "import sys; from lipsync_core import load_model; load_model('mini'); "
        "print('sympy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
