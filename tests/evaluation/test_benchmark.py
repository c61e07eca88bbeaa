"""The benchmark on clips made here: baselines, jobs, report; and the same on Ray."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from helpers.benchmarks import speaking
from helpers.golden import build
from helpers.media import levels, write_video
from safetensors.torch import load_file

from lipsync_core.audio.features import log_mel
from lipsync_core.evaluation.baselines import copy_mouth
from lipsync_core.evaluation.benchmark import Benchmark, frames_of_scripts
from lipsync_core.evaluation.pairs import Pair
from lipsync_core.evaluation.report import name_scores, write_report
from lipsync_core.media import probe_sound, read_audio, read_frames
from lipsync_core.models import hub
from lipsync_core.models.inception import Inception, InceptionConfig
from lipsync_core.models.syncnet import SyncNet, SyncNetConfig
from lipsync_core.models.weights import save_model
from lipsync_core.runtime.jobs import Cluster, Outcome, run_jobs
from lipsync_core.types import Audio, FaceTrack

PAIRS = [Pair("short.mp4", "long.mp4"), Pair("short.mp4", "gone.mp4")]
METHODS = ["real", "undubbed", "copied mouth", "frozen mouth", "mini"]


@pytest.mark.parametrize(
    "samples", [0, 2999, 3000, 3001, 3199, 3200, 3800, 16000, 160_000, 160_123]
)
def test_the_scripts_make_as_many_frames_as_they_have_windows(samples: int) -> None:
    columns = log_mel(Audio(torch.zeros(1, samples), 16000)).shape[1] if samples else 1
    count = 0
    while math.floor(80 * count / 25) + 16 <= columns:
        count += 1
    assert frames_of_scripts(samples) == count


def test_a_copied_mouth_is_that_of_half_a_clip_away(tmp_path: Path) -> None:
    count = 9
    path = write_video(tmp_path / "grey.mp4", levels(count, width=96, height=96))
    points = torch.tensor([[36.0, 34], [60, 34], [48, 47], [39, 60], [57, 60]]).expand(count, 5, 2)
    visible = torch.ones(count, dtype=torch.bool)
    visible[5] = False
    person = FaceTrack(torch.tensor([[24.0, 16, 72, 80]]).expand(count, 4), points, visible)
    out = torch.cat([piece.pixels for piece in copy_mouth(path, Fraction(25), person, count)])
    own = torch.cat([piece.pixels for piece in read_frames(path)])
    assert out.shape == own.shape and torch.equal(out[:, :20], own[:, :20])
    for i in range(count):
        partner = (i + 4) % count
        wanted = own[i] if 5 in (i, partner) else own[partner]
        assert (out[i, 62, 48].int() - wanted[62, 48].int()).abs().max() <= 1


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    speaking(folder / "long.mp4", 30, 0)
    speaking(folder / "short.mp4", 22, 1)
    return folder


@pytest.fixture(scope="module")
def done(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Benchmark, list[Outcome]]:
    plan = Benchmark(root, tmp_path_factory.mktemp("results"))
    return plan, run_jobs(
        plan.jobs(PAIRS), plan.prepare, plan.out / "results.jsonl", attempts=1, threads=1
    )


def test_every_method_makes_and_scores_every_pair(done: tuple[Benchmark, list[Outcome]]) -> None:
    plan, outcomes = done
    assert [outcome.arguments["method"] for outcome in outcomes] == 2 * METHODS
    for outcome in outcomes[:5]:
        assert outcome.error is None and outcome.result is not None
        video = plan.out / outcome.result["out"]
        shown = sum(piece.pixels.shape[0] for piece in read_frames(video))
        # AAC ends within a packet of the picture
        assert shown == outcome.result["frames"] in (22, 23)
        assert probe_sound(video).rate == 16000
        assert 0 < outcome.result["distance"] < 2 and outcome.result["sharpness"] > 0
        assert outcome.result["fid_features"] is None and outcome.result["tracks"] == 1
        assert outcome.result["untouched_change"] < 6 and outcome.result["face"] >= 0
        assert outcome.result["measured"]["codec"].startswith("h264 yuv420p 25 fps, aac 16000")
        assert outcome.result["silence"] is None
    for outcome in outcomes[5:]:
        assert outcome.result is None and "gone.mp4" in str(outcome.error)


def lips_of(page: str) -> str:
    return page[page.index("## Whose lips") : page.index("## Shapes and picture")]


def test_every_result_says_whose_lips_it_shows(done: tuple[Benchmark, list[Outcome]]) -> None:
    plan, outcomes = done
    results = {outcome.arguments["method"]: outcome.result or {} for outcome in outcomes[:5]}
    for method, result in results.items():
        assert {"truth", "leak", "movement", "reasons", "landmarks"} <= set(result["mouth"])
        assert ("mouth_references" in result) == (method == "undubbed")
    assert results["real"]["mouth"]["leak"] is None and results["real"]["mouth"]["reasons"]["leak"]
    assert (
        results["undubbed"]["mouth"]["leak"] is not None
        and results["mini"]["mouth"]["chance"] is not None
    )
    table = lips_of(write_report(plan, outcomes, pairs="two of our own"))
    for name in [*METHODS, "loudness alone"]:
        assert f"| {name} " in table


def test_the_report_counts_failures_and_keeps_the_paper_apart(
    done: tuple[Benchmark, list[Outcome]],
) -> None:
    plan, outcomes = done
    page = write_report(plan, outcomes, pairs="two of our own", unpaired={"x.mp4": "not drawn"})
    assert page.strip() == (plan.out / "table.md").read_text(encoding="utf-8").strip()
    main, paper = page.split("## Whose lips")[0], page[page.index("## The paper's table") :]
    lines = (main + paper).splitlines()
    rows = {
        line.split("|")[1].strip(): line.split("|")[2:] for line in lines if line.startswith("| ")
    }
    for method in METHODS:
        assert [cell.strip() for cell in rows[method][:2]] == ["1", "1"]
    assert (
        rows["Wav2Lip"][1].strip() == "6.386 / 7.789 / 4.887"
        and rows["Real"][0].strip() == "7.012 / 6.931 / –"
    )
    ours = page.split("## The paper")[0]
    assert (
        "LSE-D ↓" not in ours
        and "Failures: 5" in ours
        and "- not drawn: 1" in ours
        and "network is not on this" in ours
    )
    (reason,) = [line for line in ours.splitlines() if line.startswith("- 00001")]
    assert reason.startswith("- 00001, all methods: ") and "gone.mp4" in reason
    assert rows["Wav2Lip, measured again"][1].strip() == "7.151 / 6.761 / 4.922"
    text = (plan.out / "table.html").read_text(encoding="utf-8")
    assert text.count("<table>") == page.count("\n|-") and "<h2>Worst clips</h2>" in text
    sheet = "worst/00000_mini.jpg"
    assert f'<img src="{sheet}"' in text and (plan.out / sheet).read_bytes()[:2] == b"\xff\xd8"
    image = (plan.out / "distributions.png").read_bytes()
    assert image.startswith(b"\x89PNG") and len(image) > 10_000


def test_a_pair_that_fails_leaves_no_video_of_an_earlier_run(root: Path, tmp_path: Path) -> None:
    plan = Benchmark(root, tmp_path, models=())
    stale = [tmp_path / "videos/real/00001.mp4", tmp_path / "features/real/00001.safetensors"]
    for path in stale:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"of other pairs")
    job = plan.jobs(PAIRS)[4]
    (outcome,) = run_jobs([job], plan.prepare, tmp_path / "r.jsonl", attempts=1, threads=1)
    assert job.id == "00001 real" and outcome.error and not any(path.exists() for path in stale)


def test_only_syncnet_in_the_reference_protocol_gives_lse(
    done: tuple[Benchmark, list[Outcome]],
) -> None:
    plan = done[0]
    assert name_scores(replace(plan, scorer="syncnet", mode="reference")) == ("LSE-D", "LSE-C")
    assert name_scores(replace(plan, scorer="syncnet"))[0] == name_scores(plan)[0] == "distance"
    with pytest.raises(ValueError, match="expected the scorer syncnet, not judge"):
        replace(plan, mode="reference").prepare()
    with pytest.raises(ValueError, match="expected mode reference with them"):
        replace(plan, whole_frame=True)


def test_the_reference_mode_dubs_and_scores_as_the_scripts_do(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With SyncNet's layers and weights made up here."""
    path = tmp_path / hub.HUB["syncnet"].filename
    save_model(build(SyncNet, SyncNetConfig()), path, licence="none", source="made up")
    monkeypatch.setenv("LIPSYNC_WEIGHTS", str(tmp_path))
    monkeypatch.setitem(
        hub.HUB, "syncnet", replace(hub.HUB["syncnet"], sha256=hub.file_sha256(path))
    )
    plan = Benchmark(root, tmp_path / "out", scorer="syncnet", mode="reference", whole_frame=True)
    pairs = [Pair("short.mp4", "long.mp4"), Pair("long.mp4", "short.mp4")]
    outcomes = run_jobs(plan.jobs(pairs), plan.prepare, tmp_path / "r.jsonl", attempts=1, threads=1)
    wanted = frames_of_scripts(read_audio(root / "short.mp4").samples.shape[1])
    assert [outcome.result and outcome.result["frames"] for outcome in outcomes[:5]] == [wanted] * 5
    assert (
        sum(piece.pixels.shape[0] for piece in read_frames(plan.out / "videos/mini/00000.mp4"))
        == wanted
        < 22
    )
    assert all("has 22 frames; the speech wants" in str(outcome.error) for outcome in outcomes[5:])
    page = write_report(plan, outcomes, pairs="two")
    assert "LSE-D ↓" in page.split("\n## ")[0] and "syncnet, mode reference, whole frames" in page


def test_weights_of_another_hash_are_another_job(done: tuple[Benchmark, list[Outcome]]) -> None:
    plan, outcomes = done
    jobs = plan.jobs(PAIRS)
    assert [job.arguments for job in jobs] == [
        json.loads(outcome.to_json())["arguments"] for outcome in outcomes
    ]
    assert jobs[4].arguments["sha256"] and jobs[0].arguments["scorer_sha256"]
    with pytest.raises(ValueError, match="different names"):
        replace(plan, models=("mini", "elsewhere/mini.safetensors"))


def test_with_its_network_there_is_a_fid_that_says_how_weak_it_is(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network has its layers, small pictures, and weights made up here: what it says means
    nothing, but it says it."""
    path = tmp_path / hub.HUB["fid-inception"].filename
    network = build(Inception, InceptionConfig(size=75))
    save_model(network, path, licence="none", source="made up", dtype=torch.float16)
    monkeypatch.setenv("LIPSYNC_WEIGHTS", str(tmp_path))
    monkeypatch.setitem(
        hub.HUB, "fid-inception", replace(hub.HUB["fid-inception"], sha256=hub.file_sha256(path))
    )
    plan = Benchmark(root, tmp_path / "results", models=())
    outcomes = run_jobs(
        plan.jobs(PAIRS[:1]), plan.prepare, tmp_path / "r.jsonl", attempts=1, threads=1
    )
    for outcome in outcomes:
        assert outcome.result is not None, outcome.error
        found = load_file(plan.out / outcome.result["fid_features"])["features"]
        assert found.shape == (outcome.result["frames"], 2048)
    page = write_report(plan, outcomes, pairs="one")
    rows = [
        line.split("|") for line in page.split("\n## ")[0].splitlines() if line.startswith("| ")
    ]
    cells = {row[1].strip(): row[8].strip() for row in rows}
    assert cells["undubbed"].endswith("*")
    assert (
        cells["real"] == "–"
        and float(cells["copied mouth"].removesuffix("*")) >= 0
        and "biased upwards" in page
    )


def nearly(value: object) -> object:
    """What compares equal to ``value`` computed with other numbers of threads."""
    if isinstance(value, Mapping):
        return {key: nearly(part) for key, part in value.items()}
    return pytest.approx(value, abs=1e-4) if isinstance(value, float) else value


@pytest.mark.slow
@pytest.mark.skipif(
    find_spec("ray") is None, reason="Ray is not installed: pip install 'lipsync-core[ray]'"
)
def test_two_workers_of_ray_find_what_one_finds_here(
    done: tuple[Benchmark, list[Outcome]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lipsync_core

    monkeypatch.setenv("PYTHONPATH", str(Path(lipsync_core.__file__).parents[1]))
    here, wanted = done
    plan = replace(here, out=tmp_path)
    outcomes = run_jobs(
        plan.jobs(PAIRS),
        plan.prepare,
        tmp_path / "r.jsonl",
        attempts=1,
        threads=1,
        cluster=Cluster("local", 2),
    )
    for found, known in zip(outcomes, wanted, strict=True):
        assert (found.id, found.error) == (known.id, known.error)
        if known.result is not None and found.result is not None:
            assert {**found.result, "made_in_seconds": 0} == nearly(
                {**known.result, "made_in_seconds": 0}
            )
