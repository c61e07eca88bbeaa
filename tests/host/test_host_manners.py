"""Cancel, cache and clean: what the host asks of a guest."""

import logging
import time
from itertools import pairwise
from pathlib import Path

import material
import pytest
from client import Client, Event
from graph import Graph
from launch import PATIENCE

REPORT = logging.getLogger("host")  # -o log_cli=true -o log_cli_level=INFO shows it
# CPU seconds of the host from Cancel to the end; decoder, generator and encoder work at once
CANCEL_WORK = 2.0
MOST_WORK = 6.0  # however slow a batch was
MOST_STEPS = 2  # of the bar after Cancel: the one that was being made, and one on its way


def temporary(client: Client) -> set[str]:
    """What lies in the host's temporary folder, but for the pictures that its own previews keep
    there."""
    folder = client.server.base / "temp"
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".png"
    }


@pytest.fixture(scope="module")
def long(client: Client, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A clip of 20 s in the input folder."""
    return client.upload(
        material.long_clip(tmp_path_factory.mktemp("long") / "long.mp4", 20, width=640, height=480)
    )


def busy(graph: Graph, names: dict[str, str], long: str, what: str) -> None:
    """Seconds of work."""
    if what == "images":
        media = graph.add("LoadImage", image=names["photo"])
        audio = {"audio": graph.add("LipSync_LoadAudio", file=long, end=20.0)[0]}
    else:
        media, audio = graph.add("LoadVideo", file=long), {}
    if what in ("video", "images"):
        made = graph.add("LipSync_Wav2LipGenerate", media=media[0], **audio)
        graph.add("PreviewAny", source=made[1])
    elif what == "faces":
        found = graph.add("LipSync_DetectFaces", media=media[0], every=1)
        graph.add("PreviewImage", images=found[3])
    else:
        score = graph.add("LipSync_SyncScore", media=media[0])
        graph.add("PreviewAny", source=score[5])


@pytest.mark.parametrize(
    ("what", "share", "stage"),
    [
        ("video", 0.6, (0.25, 1.0)),  # mouths are drawn
        ("images", 0.6, (0.25, 1.0)),
        ("faces", 0.2, (0.18, 0.91)),  # faces are sought
        ("faces", 0.91, (0.91, 1.0)),  # portraits are cut out, or the preview is made
        ("score", 0.2, (0.09, 0.46)),  # faces are sought
    ],
)
def test_cancel_in_the_middle(
    client: Client,
    graph: Graph,
    names: dict[str, str],
    long: str,
    what: str,
    share: float,
    stage: tuple[float, float],
) -> None:
    """Within one batch: the bar moves no further, and the host works no longer than twice the
    slowest batch of the same stage took, which is no more than 6 s of its CPU."""
    busy(graph, names, long, what)
    before = temporary(client)
    prompt = client.queue(graph)
    wait_for_progress(client, prompt, share)
    client.interrupt()
    began, moved = client.server.work(), len(steps_of(client, prompt))
    outcome = client.wait(prompt)
    spent, moved = client.server.work() - began, len(steps_of(client, prompt)) - moved
    REPORT.info("%s: cancelled after %.2f CPU seconds and %d steps", what, spent, moved)
    assert outcome.status == "interrupted"
    assert moved <= MOST_STEPS
    within = min(MOST_WORK, max(CANCEL_WORK, 2 * longest_batch(client, prompt, stage)))
    assert spent < within, f"stopped after {spent:.2f} CPU seconds; wanted {within:.2f}"
    assert temporary(client) <= before  # earlier results may have gone with their videos
    following = Graph(client.get("/object_info"))
    again = following.add("LoadVideo", file=names["video"])
    made = following.add("LipSync_Wav2LipGenerate", media=again[0], crf=19.5)
    following.add("SaveVideo", video=made[0])
    client.finish(following)


def steps_of(client: Client, prompt: str) -> list[Event]:
    """What the bar of a prompt told."""
    return [
        event
        for event in list(client.events)
        if event.kind == "progress" and event.data.get("prompt_id") == prompt
    ]


def wait_for_progress(client: Client, prompt: str, share: float, *, seconds: float = 60) -> None:
    """Wait until the bar has come so far; it may not stand still for ``seconds``."""
    moved, seen = time.monotonic(), 0
    while time.monotonic() < moved + seconds * PATIENCE:
        steps = steps_of(client, prompt)
        if steps and steps[-1].data["value"] >= share * steps[-1].data["max"]:
            return
        if len(steps) > seen:
            moved, seen = time.monotonic(), len(steps)
        ended = client.get(f"/history/{prompt}")
        assert not ended, ended
        time.sleep(0.02)
    raise AssertionError(f"the bar stands still for {seconds} s: {steps[-1:]}")


def longest_batch(client: Client, prompt: str, stage: tuple[float, float]) -> float:
    """Seconds: the longest that the bar of the node that ran last stood still between these shares
    of its length."""
    steps = steps_of(client, prompt)
    begin, end = stage
    times = [
        e.time
        for e in steps
        if e.data["node"] == steps[-1].data["node"]
        and begin <= e.data["value"] / e.data["max"] <= end
    ]
    return max((after - before for before, after in pairwise(times)), default=0.0)


def dubbing(graph: Graph, names: dict[str, str], **blend: object) -> tuple[Graph, dict[str, str]]:
    video = graph.add("LoadVideo", file=names["video"])
    voice = graph.add("LipSync_LoadAudio", file=names["voice"])
    faces = graph.add("LipSync_DetectFaces", media=video[0])
    chosen = graph.add("LipSync_SelectFace", tracks=faces[0])
    settings = graph.add("LipSync_BlendSettings", **blend)
    made = graph.add(
        "LipSync_Wav2LipGenerate",
        media=video[0],
        audio=voice[0],
        tracks=chosen[0],
        blend=settings[0],
    )
    save = graph.add("SaveVideo", video=made[0])
    nodes = {"blend": settings, "made": made, "save": save}
    return graph, {name: node.id for name, node in nodes.items()}


def test_what_is_unchanged_does_not_run_again(
    client: Client, graph: Graph, names: dict[str, str]
) -> None:
    prompt, _ = dubbing(graph, names, feather=0.07)
    client.finish(prompt)
    assert client.finish(prompt).executed == []


def test_another_blend_detects_nobody_again(
    client: Client, graph: Graph, names: dict[str, str]
) -> None:
    prompt, ids = dubbing(graph, names, feather=0.06)
    client.finish(prompt)
    prompt[ids["blend"]]["inputs"]["feather"] = 0.2
    assert set(client.finish(prompt).executed) == {ids["blend"], ids["made"], ids["save"]}


def test_a_changed_file_of_the_same_name_is_read_again(
    client: Client, graph: Graph, tmp_path: Path
) -> None:
    name = client.upload(material.voice(tmp_path / "said.wav", 0.5))
    sound = graph.add("LipSync_LoadAudio", file=name)
    length = graph.add("PreviewAny", source=sound[1])
    first = client.finish(graph).outputs[length.id]["text"][0]
    client.upload(material.voice(tmp_path / "said.wav", 0.8))
    second = client.finish(graph).outputs[length.id]["text"][0]
    assert (float(first), float(second)) == pytest.approx((0.5, 0.8))


def test_an_error_leaves_no_temporary_files(
    client: Client, graph: Graph, names: dict[str, str], tmp_path: Path
) -> None:
    before = temporary(client)
    video = graph.add("LoadVideo", file=client.upload(material.no_face(tmp_path / "wall.mp4")))
    voice = graph.add("LoadAudio", audio=names["voice"])
    made = graph.add("LipSync_Wav2LipGenerate", media=video[0], audio=voice[0])
    graph.add("SaveVideo", video=made[0])
    assert client.run(graph).status == "error"
    assert temporary(client) <= before  # earlier results may have gone with their videos
