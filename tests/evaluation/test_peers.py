"""Other tools beside ours: their folders, and commands that no shell reads."""

import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from helpers.benchmarks import speaking

from lipsync_core.errors import LipSyncError
from lipsync_core.evaluation.benchmark import Benchmark
from lipsync_core.evaluation.making import BASELINES, Maker, Scene
from lipsync_core.evaluation.pairs import Pair
from lipsync_core.evaluation.peers import find_output, parse_command, parse_outputs, run_command
from lipsync_core.evaluation.report import write_report
from lipsync_core.media import probe, read_audio, read_frames
from lipsync_core.runtime.jobs import run_jobs
from lipsync_core.types import Audio, FaceTrack

PAIR = Pair("talk/speech.wav", "faces/anna b.mp4")
SPEECH = Audio(0.1 * torch.ones(1, 1600), 16000)


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        ("dub {face} {audio} {out}", "dub", ("dub", "{face}", "{audio}", "{out}")),
        (
            'w2l=python "my tool.py" --face={face} --audio {audio} --outfile {out}',
            "w2l",
            ("python", "my tool.py", "--face={face}", "--audio", "{audio}", "--outfile", "{out}"),
        ),
        (
            r'C:\tools\dub.exe --model="a b" {face} {audio} {out}',
            "dub",
            (r"C:\tools\dub.exe", "--model=a b", "{face}", "{audio}", "{out}"),
        ),
        (
            "python d.py --face={face} -a {audio} -o {out} # $HOME; x",
            "python",
            (
                "python",
                "d.py",
                "--face={face}",
                "-a",
                "{audio}",
                "-o",
                "{out}",
                "#",
                "$HOME;",
                "x",
            ),
        ),
    ],
)
def test_commands_are_split_into_words_on_every_system(
    text: str, name: str, words: tuple[str, ...]
) -> None:
    assert parse_command(text) == (name, words)


def test_what_is_no_command_and_no_folder_is_refused() -> None:
    with pytest.raises(ValueError, match=r"lacks \{audio\}, \{out\}"):
        parse_command("dub {face}")
    with pytest.raises(ValueError, match="cannot be read"):
        parse_command('dub "{face} {audio} {out}')
    assert parse_outputs("theirs=out/a=b") == ("theirs", Path("out/a=b"))
    for text in ("theirs", "=out", "theirs="):
        with pytest.raises(ValueError, match="expected NAME=FOLDER"):
            parse_outputs(text)
    with pytest.raises(ValueError, match="can name a folder"):
        Benchmark(Path(), Path(), outputs=(("a/b", Path()),))
    with pytest.raises(ValueError, match="different names"):
        Benchmark(Path(), Path(), commands=(("mini", ("x",)),))


def test_dubs_are_found_by_number_or_by_names(tmp_path: Path) -> None:
    assert find_output(tmp_path, 3, PAIR) is None
    for name in ("anna b_speech.avi", "anna b--speech.mkv", "00003.mp4"):
        (tmp_path / name).touch()
        assert find_output(tmp_path, 3, PAIR) == tmp_path / name


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code, "{face}", "{audio}", "{out}")


def test_a_command_gets_files_with_any_name_and_no_shell(tmp_path: Path) -> None:
    face, out = tmp_path / "a; $(b) 'c'.mp4", tmp_path / "o u t.mp4"
    code = (
        "import sys, wave; face, sound, out = sys.argv[1:]; "
        "open(out, 'w').write(face + str(wave.open(sound).getparams()[:4]))"
    )
    run_command(python(code), face, SPEECH, out)
    assert out.read_text() == f"{face}(1, 2, 16000, 1600)"
    assert list(tmp_path.iterdir()) == [out]  # the speech is removed again


def test_commands_that_fail_say_why(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    with pytest.raises(LipSyncError, match="ended with code 3: no such model"):
        run_command(python("import sys; print('no such model'); sys.exit(3)"), out, SPEECH, out)
    with pytest.raises(LipSyncError, match=r"did not write out\.mp4"):
        run_command(python("pass"), out, SPEECH, out)
    with pytest.raises(LipSyncError, match="cannot be started"):
        run_command(("no such program", "{face}", "{audio}", "{out}"), out, SPEECH, out)


def test_dubs_of_another_size_are_refused_and_padding_is_cut(tmp_path: Path) -> None:
    speaking(tmp_path / "clip.mp4", 3, 0)
    info = probe(tmp_path / "clip.mp4")
    person = FaceTrack(torch.zeros(3, 4), torch.zeros(3, 5, 2), torch.zeros(3, dtype=torch.bool))

    def shown(width: int) -> torch.Size:
        scene = Scene(tmp_path, replace(info, width=width), tmp_path, 3, person)
        return next(scene.frames(tmp_path / "clip.mp4")).pixels.shape

    assert shown(255) == (3, 256, 255, 3)
    for width in (200, 300):
        with pytest.raises(LipSyncError, match=f"has 256x256 px; expected {width}x256"):
            shown(width)


def test_folders_and_commands_stand_beside_the_baselines(tmp_path: Path) -> None:
    """The command copies the face, which then is as the undubbed video under its own sound."""
    root, theirs = tmp_path / "clips", tmp_path / "theirs"
    for folder in (root, theirs):
        folder.mkdir()
    speaking(root / "face.mp4", 15, 0)
    speaking(root / "speech.mp4", 13, 1)
    copy = python("import shutil, sys; shutil.copyfile(sys.argv[1], sys.argv[3])")
    plan = Benchmark(
        root,
        tmp_path / "out",
        models=(),
        silence=True,
        outputs=(("theirs", theirs),),
        commands=(("copy", copy),),
    )
    pair = Pair("speech.mp4", "face.mp4")
    jobs = [job for job in plan.jobs([pair]) if job.arguments["method"] not in BASELINES]
    outcomes = run_jobs(jobs, plan.prepare, tmp_path / "r.jsonl", attempts=1, threads=1)
    found = {outcome.arguments["method"]: outcome for outcome in outcomes}
    assert "theirs has no dub of this pair; expected 00000.mp4" in str(found["theirs"].error)
    copied = found["copy"].result
    assert copied is not None, found["copy"].error
    assert copied["untouched_exact"] == 1 and copied["made_in_seconds"] > 0
    assert copied["silence"].keys() >= {"lip_leak", "silent", "confidence"}
    page = write_report(plan, outcomes, pairs="one")
    assert "## In silence" in page and "| theirs " in page
    # a dub that is put there makes the job another one, which is done
    (theirs / "face--speech.mp4").write_bytes((root / "face.mp4").read_bytes())
    assert plan.jobs([pair])[4] not in jobs and plan.jobs([pair])[4].arguments["output"]


def test_a_frozen_mouth_and_speech_end_with_the_scene(tmp_path: Path) -> None:
    from lipsync_core.evaluation.making import read_speech

    speaking(tmp_path / "clip.mp4", 10, 0)
    info, seen = probe(tmp_path / "clip.mp4"), torch.ones(6, dtype=torch.bool)
    points = torch.tensor([[100.0, 90], [140, 90], [120, 115], [103, 140], [137, 140]])
    person = FaceTrack(
        torch.tensor([[80.0, 50, 160, 170]]).expand(6, 4), points.expand(6, 5, 2), seen
    )
    scene = Scene(tmp_path / "clip.mp4", info, tmp_path / "clip.mp4", 6, person)
    assert read_speech(scene).samples.shape[1] == 6 * read_audio(scene.audio).rate // 25
    Maker({}, {}, {}).make("frozen mouth", scene, tmp_path / "frozen.mp4")
    made = torch.cat(
        [p.pixels for p in read_frames(tmp_path / "frozen.mp4", fps=Fraction(25))]
    ).float()
    own = torch.cat([p.pixels for p in scene.frames(scene.video)]).float()
    mouth = (slice(None), slice(136, 144), slice(112, 128))
    assert made[mouth].std(0).mean() < 0.3 * own[mouth].std(0).mean()
