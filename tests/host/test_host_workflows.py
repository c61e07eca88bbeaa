"""Everything that a creator wires runs to the end and leaves something that plays: our workflows
with the media they come with, and our nodes between the host's own."""

import json
from pathlib import Path

import material
import pytest
from client import Client
from graph import Graph
from launch import ROOT
from material import played

WORKFLOWS = sorted((ROOT / "example_workflows/api").glob("*.json"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_runs_untouched(client: Client, names: dict[str, str], path: Path) -> None:
    """Only the app asks for a face and a voice."""
    workflow = json.loads(path.read_text(encoding="utf-8"))
    for node in workflow.values():
        own = {"LoadImage": ("image", "photo"), "LipSync_LoadAudio": ("file", "voice")}
        if node["class_type"] in own:
            widget, kind = own[node["class_type"]]
            node["inputs"][widget] = names[kind]
    outcome = client.finish(workflow, seconds=500)
    savers = [
        id
        for id, node in workflow.items()
        if node["class_type"] in ("SaveVideo", "PreviewImage", "PreviewAny")
    ]
    assert savers and all(id in outcome.outputs for id in savers), outcome.outputs
    for item in outcome.files():
        shown = client.server.path(item)
        assert shown.stat().st_size > 0
        if shown.suffix == ".mp4":
            frames, seconds, strays = played(shown)
            assert frames >= 25 and abs(seconds - frames / 25) < 0.2 and strays.max() > 20, (
                shown,
                frames,
                seconds,
            )


def test_there_are_workflows() -> None:
    assert len(WORKFLOWS) >= 6


def test_the_shortest_graph(client: Client, graph: Graph, names: dict[str, str]) -> None:
    """Four nodes, no setting."""
    video = graph.add("LoadVideo", file=names["video"])
    voice = graph.add("LoadAudio", audio=names["voice"])
    made = graph.add("LipSync_Wav2LipGenerate", media=video[0], audio=voice[0])
    save = graph.add("SaveVideo", video=made[0])
    outcome = client.finish(graph)
    frames, seconds, _ = played(client.saved(outcome, save))
    assert frames == 25 and abs(seconds - 1) < 0.07
    assert outcome.steps and outcome.steps[-1][1] == outcome.steps[-1][2], "the bar did not fill"
    assert outcome.previews, "no preview was shown"


def test_a_photograph_speaks_as_images(client: Client, graph: Graph, names: dict[str, str]) -> None:
    photo = graph.add("LoadImage", image=names["photo"])
    voice = graph.add("LipSync_LoadAudio", file=names["voice"])
    made = graph.add("LipSync_Wav2LipGenerate", media=photo[0], audio=voice[0], fps=20.0)
    video = graph.add("CreateVideo", images=made[0], audio=made[1], fps=20.0)
    save = graph.add("SaveVideo", video=video[0])
    look, changed = (
        graph.add("PreviewImage", images=made[0]),
        graph.add("MaskPreview", mask=made[2]),
    )
    outcome = client.finish(graph)
    frames, seconds, strays = played(client.saved(outcome, save))
    assert frames == 20 and abs(seconds - 1) < 0.07 and strays.max() > 20
    assert len(outcome.files(look.id)) == 20 == len(outcome.files(changed.id))


def test_an_image_with_alpha_speaks(client: Client, graph: Graph, names: dict[str, str]) -> None:
    photo = graph.add("LoadImage", image=names["photo"])
    alpha = graph.add("JoinImageWithAlpha", image=photo[0], alpha=photo[1])
    voice = graph.add("LoadAudio", audio=names["voice"])
    made = graph.add("LipSync_Wav2LipGenerate", media=alpha[0], audio=voice[0])
    look = graph.add("PreviewImage", images=made[0])
    assert len(client.finish(graph).files(look.id)) == 25


def test_the_frames_of_a_video_and_back(
    client: Client, graph: Graph, names: dict[str, str]
) -> None:
    video = graph.add("LoadVideo", file=names["video"])
    parts = graph.add("GetVideoComponents", video=video[0])
    # ComfyUI 0.14.1 gives the first 60 ms of it only
    sound = graph.add("LipSync_LoadAudio", video=video[0])
    made = graph.add("LipSync_Wav2LipGenerate", media=parts[0], audio=sound[0], fps=parts[2])
    built = graph.add("CreateVideo", images=made[0], audio=made[1], fps=parts[2])
    save = graph.add("SaveVideo", video=built[0])
    frames, seconds, _ = played(client.saved(client.finish(graph), save))
    # AAC made the sound a little longer
    assert frames in (20, 21) and abs(seconds - frames / 25) < 0.07


def test_a_slice_of_a_video_and_a_slice_of_the_result(
    client: Client, graph: Graph, names: dict[str, str]
) -> None:
    video = graph.add("LoadVideo", file=names["video"])
    part = graph.add("Video Slice", video=video[0], start_time=0.2, duration=0.4)
    made = graph.add("LipSync_Wav2LipGenerate", media=part[0])
    whole = graph.add("SaveVideo", video=made[0])
    less = graph.add("Video Slice", video=made[0], start_time=0.08, duration=0.2)
    save = graph.add("SaveVideo", video=less[0])
    outcome = client.finish(graph)
    assert played(client.saved(outcome, whole))[0] == 10
    assert played(client.saved(outcome, save))[0] == 5


def test_a_video_made_of_images_speaks(client: Client, graph: Graph, names: dict[str, str]) -> None:
    photo = graph.add("LoadImage", image=names["photo"])
    many = graph.add("RepeatImageBatch", image=photo[0], amount=6)
    voice = graph.add("LoadAudio", audio=names["voice"])
    video = graph.add("CreateVideo", images=many[0], audio=voice[0], fps=25.0)
    faces = graph.add("LipSync_DetectFaces", media=video[0])
    made = graph.add(
        "LipSync_Wav2LipGenerate", media=video[0], audio=voice[0], tracks=faces[0], longer="hold"
    )
    parts = graph.add("GetVideoComponents", video=made[0])
    look, save = graph.add("PreviewImage", images=parts[0]), graph.add("SaveVideo", video=made[0])
    outcome = client.finish(graph)
    assert len(outcome.files(look.id)) == 25 == played(client.saved(outcome, save))[0]


@pytest.mark.parametrize("kind", ["video", "images"])
def test_who_is_there_and_two_who_speak(
    client: Client, graph: Graph, names: dict[str, str], kind: str
) -> None:
    video = graph.add("LoadVideo", file=names["two"])
    media = video if kind == "video" else graph.add("GetVideoComponents", video=video[0])
    voice = graph.add("LoadAudio", audio=names["voice"])
    photo = graph.add("LoadImage", image=names["photo"])
    faces = graph.add("LipSync_DetectFaces", media=media[0])
    sheet, count = (
        graph.add("PreviewImage", images=faces[3]),
        graph.add("PreviewAny", source=faces[2]),
    )
    again = graph.add("LipSync_DetectFaces", media=media[0], bboxes=faces[1])
    left = graph.add("LipSync_SelectFace", tracks=faces[0], rule="left", audio=voice[0])
    both = graph.add("LipSync_SelectFace", tracks=left[0], rule="right")
    alike = graph.add("LipSync_SelectFace", tracks=again[0], rule="like image", reference=photo[0])
    blend = graph.add("LipSync_BlendSettings", mask="lower", colour_match=True)
    model = graph.add("LipSync_LoadLipSyncModel")
    made = graph.add(
        "LipSync_Wav2LipGenerate",
        media=media[0],
        audio=voice[0],
        tracks=both[0],
        blend=blend[0],
        model=model[0],
    )
    one = graph.add("LipSync_Wav2LipGenerate", media=media[0], audio=voice[0], tracks=alike[0])
    if kind == "video":
        saves = [graph.add("SaveVideo", video=node[0]) for node in (made, one)]
    else:
        mask = graph.add("MaskPreview", mask=faces[4])
        built = [
            graph.add("CreateVideo", images=node[0], audio=node[1], fps=25.0)
            for node in (made, one)
        ]
        saves = [graph.add("SaveVideo", video=node[0]) for node in built]
    outcome = client.finish(graph)
    assert outcome.outputs[count.id]["text"] in (["2"], ("2",))
    assert 1 <= len(outcome.files(sheet.id)) <= 20
    strays = played(client.saved(outcome, saves[0]))[2]
    assert strays[:, :256].max() > 25 and strays[:, 256:].max() > 25, "one of the two is silent"
    played(client.saved(outcome, saves[1]))
    if kind == "images":
        assert len(outcome.files(mask.id)) == 20


def test_the_mask_of_a_video_says_why_there_is_none(
    client: Client, graph: Graph, names: dict[str, str]
) -> None:
    video = graph.add("LoadVideo", file=names["video"])
    faces = graph.add("LipSync_DetectFaces", media=video[0])
    graph.add("MaskPreview", mask=faces[4])
    prompt = client.queue(graph)
    client.wait(prompt)  # a success: the host only tells the page
    told = [
        e.data
        for e in client.events
        if e.kind == "execution_error" and e.data["prompt_id"] == prompt
    ]
    assert [data["exception_type"] for data in told] == ["ExecutionBlocked"]
    assert "Get Video Components" in told[0]["exception_message"]  # what to do


def test_the_hosts_own_boxes(client: Client, graph: Graph, names: dict[str, str]) -> None:
    if "PrimitiveBoundingBox" not in client.get("/object_info"):
        assert "0.14" in client.server.log(), "only the oldest hosts have no node for a box"
        return
    video = graph.add("LoadVideo", file=names["video"])
    box = graph.add("PrimitiveBoundingBox", x=90, y=60, width=80, height=100)
    faces = graph.add("LipSync_DetectFaces", media=video[0], bboxes=box[0])
    made = graph.add("LipSync_Wav2LipGenerate", media=video[0], tracks=faces[0])
    graph.add("SaveVideo", video=made[0])
    client.finish(graph)


def test_measure_shift_and_mux(client: Client, graph: Graph) -> None:
    """What is out of sync is found, and fixed, by what the first node says to the second."""
    demo = graph.add("LipSync_DemoMedia", clip="out of sync")
    score = graph.add("LipSync_SyncScore", media=demo[1])
    plot, verdict = (
        graph.add("PreviewImage", images=score[4]),
        graph.add("PreviewAny", source=score[5]),
    )
    late = graph.add("PreviewAny", source=score[1])
    sound = graph.add("LipSync_LoadAudio", video=demo[1])
    moved = graph.add("LipSync_ShiftAudio", audio=sound[0], amount=score[0])
    fixed = graph.add("LipSync_SetAudio", video=demo[1], audio=moved[0])
    save, heard = graph.add("SaveVideo", video=fixed[0]), graph.add("PreviewAudio", audio=moved[0])
    again = graph.add("LipSync_SyncScore", media=fixed[0])
    left = graph.add("PreviewAny", source=again[1])
    outcome = client.finish(graph, seconds=400)
    assert (
        len(outcome.files(plot.id)) == 1 == len(outcome.files(heard.id))
        and outcome.outputs[verdict.id]["text"][0]
    )
    assert abs(float(outcome.outputs[late.id]["text"][0]) + 200) <= 40
    assert abs(float(outcome.outputs[left.id]["text"][0])) <= 40
    played(client.saved(outcome, save))


def test_the_hosts_own_sound_nodes(client: Client, graph: Graph, names: dict[str, str]) -> None:
    sound = graph.add("LipSync_LoadAudio", file=names["video"], start=0.2, end=0.6)
    length = graph.add("PreviewAny", source=sound[1])
    double = graph.add("AudioConcat", audio1=sound[0], audio2=sound[0])
    short = graph.add("TrimAudioDuration", audio=double[0], start_index=0.1, duration=0.6)
    video = graph.add("LoadVideo", file=names["silent"])
    made = graph.add("LipSync_Wav2LipGenerate", media=video[0], audio=short[0])
    save, kept = graph.add("SaveVideo", video=made[0]), graph.add("SaveAudio", audio=made[1])
    outcome = client.finish(graph)
    assert float(outcome.outputs[length.id]["text"][0]) == pytest.approx(0.4, abs=0.001)
    assert played(client.saved(outcome, save))[0] == 15
    client.saved(outcome, kept)


def test_a_folder_is_scored_one_by_one(client: Client, graph: Graph) -> None:
    videos = graph.add("LipSync_LoadVideos", limit=2)
    score = graph.add("LipSync_SyncScore", media=videos[0])
    told, named = (
        graph.add("PreviewAny", source=score[5]),
        graph.add("PreviewAny", source=videos[1]),
    )
    outcome = client.finish(graph, seconds=400)
    assert len(outcome.outputs[told.id]["text"]) == 2 == len(outcome.outputs[named.id]["text"])


def test_a_folder_with_bad_clips_goes_on(
    client: Client, graph: Graph, names: dict[str, str]
) -> None:
    folder = client.server.base / "input/takes"
    folder.mkdir()
    (folder / "a.mp4").write_bytes((folder.parent / names["video"]).read_bytes())
    material.clip(folder / "b.mp4", material.face(20) * 0 + 90)  # a wall, long enough to score
    (folder / "b.wav").unlink()
    (folder / "b.silent.mp4").unlink()
    (folder / "c.mp4").write_bytes((folder.parent / names["silent"]).read_bytes())
    material.text(folder / "d.mp4")
    videos = graph.add("LipSync_LoadVideos", folder="takes")
    score = graph.add("LipSync_SyncScore", media=videos[0])
    told, look = (
        graph.add("PreviewAny", source=score[5]),
        graph.add("PreviewImage", images=score[4]),
    )
    made = graph.add("LipSync_Wav2LipGenerate", media=videos[0])
    report = graph.add("PreviewAny", source=made[4])
    save = graph.add("SaveVideo", video=made[0], filename_prefix=videos[2])
    outcome = client.finish(graph, seconds=400)
    verdicts, reports = (outcome.outputs[node.id]["text"] for node in (told, report))
    assert [text.split(":")[0] for text in verdicts[1:]] == [
        "no face in b.mp4",
        "no sound in c.mp4",
        "no picture in d.mp4",
    ]
    assert "frames dubbed" in reports[0] and len(reports) == 4 == len(outcome.files(look.id))
    saved = [item["filename"].split("_")[0] for item in outcome.files(save.id)]
    assert saved == ["a", "b", "c"]  # under their names; d cannot be read


def test_a_workflow_of_the_incumbent_runs_with_our_node(
    client: Client, graph: Graph, names: dict[str, str]
) -> None:
    photo = graph.add("LoadImage", image=names["photo"])
    voice = graph.add("LoadAudio", audio=names["voice"])
    widgets = {"mode": "sequential", "face_detect_batch": 8, "model_file": "wav2lip_gan.pth"}
    inputs = {"images": photo[0], "audio": voice[0], **widgets}
    graph["3"] = {"class_type": "Wav2Lip", "inputs": inputs, "_meta": {"title": "Wav2Lip"}}
    look = graph.add("PreviewImage", images=["3", 0])
    # a second, at the incumbent's 30 frames a second
    assert len(client.finish(graph).files(look.id)) == 30


def test_a_broken_torchaudio_breaks_nothing_of_ours(
    broken: Client, names: dict[str, str], tmp_path: Path
) -> None:
    graph = Graph(broken.get("/object_info"))
    video = graph.add(
        "LoadVideo", file=broken.upload(material.clip(tmp_path / "face.mp4", material.face(20)))
    )
    voice = graph.add(
        "LipSync_LoadAudio",
        file=broken.upload(material.voice(tmp_path / "voice.wav", 1.0, rate=44100)),
    )
    made = graph.add("LipSync_Wav2LipGenerate", media=video[0], audio=voice[0])
    save = graph.add("SaveVideo", video=made[0])
    score = graph.add("LipSync_SyncScore", media=made[0])
    graph.add("PreviewAny", source=score[5])
    outcome = broken.finish(graph)
    assert played(broken.saved(outcome, save))[0] == 25
