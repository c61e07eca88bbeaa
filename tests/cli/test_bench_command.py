"""`lipsync bench` and `lipsync batch`: rows, switches, addresses, resuming."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
from helpers.benchmarks import speaking
from typer.testing import CliRunner

from lipsync_core.cli.bench import DubRows, OptionalAddress, read_rows, run_and_report
from lipsync_core.cli.main import app
from lipsync_core.errors import LipSyncError
from lipsync_core.media import probe
from lipsync_core.runtime.jobs import Job, read_outcomes


@pytest.mark.parametrize(
    ("words", "address"),
    [
        ([], None),
        (["--ray"], "local"),
        (["--ray", "--count", "3"], "local"),
        (["--ray", "auto"], "auto"),
        (["--ray=host:10001", "--count", "3"], "host:10001"),
    ],
)
def test_ray_stands_with_and_without_an_address(words: list[str], address: str | None) -> None:
    small = typer.Typer()

    @small.command(cls=OptionalAddress)
    def command(ray: str | None = None, count: int = 0) -> None:  # pyright: ignore[reportUnusedFunction]
        typer.echo(json.dumps(ray))

    result = CliRunner().invoke(small, words, catch_exceptions=False)
    assert json.loads(result.stdout) == address


def table(folder: Path, text: str) -> Path:
    path = folder / "jobs.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("face,audio\na,b\n", "columns missing: out"),
        ("face,audio,out,colour\na,b,c,d\n", "columns no options of dub: 'colour'"),
        ("face;audio;out\na;b;c\n", "expected commas"),
        ("face,audio,out,Audio\na,b,c,d\n", "columns there twice: audio"),
        ("", "columns missing: face, audio, out"),
        ("face,out\na,o.mp4\n", "columns missing: audio"),
        ("face,audio,out\n,,\n", "no rows below its header"),
        ("face,audio,out\na,b,o.mp4\n\n,,\nd,e,./o.mp4\n", "lines 2 and 5 both write ./o.mp4"),
        ("face,audio,out\na,b\n", "line 2 has 2 cells; expected 3"),
        ("face,audio,out\n,b,c\n", "line 2: no face; expected a file"),
        ("face,audio,out\na,b,\n", "line 2: no out; expected a file"),
        (
            "face,audio,out\na,b,c\na,,d\n",
            "line 3: Invalid value for AUDIO: give either AUDIO or --pair",
        ),
        ("face,audio,out,batch\na,b,c,abc\n", "line 2: Invalid value for '--batch'"),
        ("face,audio,out,detector\na,b,c,foo\n", "line 2: Invalid value for '--detector'"),
        ("face,audio,out,feather\na,b,c,9\n", "line 2: Invalid value for '--feather'"),
        (
            "face,audio,out,overwrite\na,b,c,maybe\n",
            "line 2: overwrite is 'maybe'; expected true or false",
        ),
        ("face,audio,out,which\na,b,c,top\n", "line 2: 'top' names no face"),
    ],
)
def test_tables_that_cannot_be_meant_are_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(typer.BadParameter) as error:
        read_rows(table(tmp_path, text))
    assert said in str(error.value) and "[]" not in str(error.value)


@pytest.mark.parametrize(
    ("separator", "encoding"),
    [(",", "utf-8"), ("\t", "utf-8-sig"), ("\t", "utf-16"), (",", "utf-16-be")],
)
def test_tables_of_spreadsheets_are_read(tmp_path: Path, separator: str, encoding: str) -> None:
    rows = [["face", "audio", "out", "which"], ["Zoë, 1.mp4", "b.wav", "c.mp4", "right"]]
    text = "\r\n".join(separator.join(f'"{cell}"' for cell in row) for row in rows)
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    (tmp_path / "jobs.csv").write_bytes((mark + text).encode(encoding))
    (job,) = read_rows(tmp_path / "jobs.csv")
    options = DubRows().options(job.arguments)
    assert (options.face.name, options.which) == ("Zoë, 1.mp4", "right")


def test_a_table_in_another_encoding_says_how_to_save_it(tmp_path: Path) -> None:
    (tmp_path / "jobs.csv").write_bytes("face,audio,out\nZoë.mp4,b.wav,c.mp4\n".encode("latin-1"))
    with pytest.raises(typer.BadParameter, match='byte 17 is not UTF-8; save it as "CSV UTF-8"'):
        read_rows(tmp_path / "jobs.csv")


def test_a_row_that_dub_would_not_take_stops_all_of_them(tmp_path: Path) -> None:
    path = table(tmp_path, "face,audio,out,batch\na.mp4,b.wav,c.mp4,\na.mp4,b.wav,d.mp4,abc\n")
    result = CliRunner().invoke(app, ["batch", str(path)])
    assert result.exit_code == 2 and list(tmp_path.iterdir()) == [path]
    assert CliRunner().invoke(app, ["batch", str(tmp_path)]).exit_code == 2
    assert CliRunner().invoke(app, ["batch", "."]).exit_code == 2


def test_a_face_may_be_called_like_an_option(tmp_path: Path) -> None:
    (job,) = read_rows(table(tmp_path, "face,audio,out\n--batch,-b.wav,-c.mp4\n"))
    options = DubRows().options(job.arguments)
    assert [path.name for path in (options.face, options.audio, options.out) if path] == [
        "--batch",
        "-b.wav",
        "-c.mp4",
    ]


def test_a_list_of_clips_is_dubbed_and_resumed(tmp_path: Path) -> None:
    speaking(tmp_path / "face.mp4", 12, 0)
    path = table(
        tmp_path,
        "face,audio,out,fps,colour-match,tag,feather\n"
        "face.mp4,face.mp4,one.mp4,12.5,spread,no,\n"
        "face.mp4,none.wav,two.mp4,,,,\n"
        "face.mp4,none.wav,three.mp4,,,,0.2\n",
    )
    first = CliRunner().invoke(app, ["batch", str(path)], catch_exceptions=False)
    assert first.exit_code == 1 and "1 of 3 dubbed" in first.stdout
    assert probe(tmp_path / "one.mp4").fps == 12.5
    lines = [
        json.loads(line)
        for line in (tmp_path / "jobs.results.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [line["id"] for line in lines] == ["one.mp4", "two.mp4", "three.mp4"]
    assert (
        lines[0]["result"]["model"] == "mini"
        and "none.wav" in lines[1]["error"]
        and "Error:" not in first.stderr
    )
    assert "not tried again" not in first.stderr
    written = (tmp_path / "one.mp4").stat().st_mtime_ns
    path.write_text(
        path.read_text(encoding="utf-8").replace("none.wav,three", "face.mp4,three"),
        encoding="utf-8",
    )
    again = CliRunner().invoke(app, ["batch", str(path)], catch_exceptions=False)
    assert "2 of 3 dubbed" in again.stdout and (tmp_path / "one.mp4").stat().st_mtime_ns == written
    assert "1 failed before and were not tried again; --retry-failed does" in again.stderr
    (tmp_path / "three.mp4").unlink()
    CliRunner().invoke(app, ["batch", str(path)], catch_exceptions=False)
    assert (tmp_path / "three.mp4").is_file() and (
        tmp_path / "one.mp4"
    ).stat().st_mtime_ns == written


def test_a_row_names_the_files_that_its_dub_reads(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.wav", "turns.csv"):
        (tmp_path / name).write_bytes(b"x")
    table = tmp_path / "jobs.csv"
    table.write_text("face,audio,out,speakers\na.mp4,b.wav,c.mp4,turns.csv\na.mp4,no.wav,d.mp4,\n")
    first, second = (job.inputs for job in read_rows(table))
    assert first == tuple(str(tmp_path / name) for name in ("a.mp4", "b.wav", "turns.csv"))
    assert second == tuple(str(tmp_path / name) for name in ("a.mp4", "no.wav"))


def test_ctrl_c_says_how_far_it_came(tmp_path: Path) -> None:
    def work(arguments: Mapping[str, Any]) -> dict[str, Any]:
        if arguments["number"] == 2:
            raise KeyboardInterrupt
        return {}

    app = typer.Typer()

    @app.command()
    def command() -> None:  # pyright: ignore[reportUnusedFunction]
        jobs = [Job(str(i), {"number": i}) for i in range(4)]
        kept = tmp_path / "r.jsonl"
        run_and_report(jobs, lambda: work, kept, stage="jobs")

    result = CliRunner().invoke(app)
    assert result.exit_code == 130 and "2 of 4 done" in result.stderr
    assert set(read_outcomes(tmp_path / "r.jsonl")) == {"0", "1"}


def test_a_benchmark_from_pairs_of_its_own(tmp_path: Path) -> None:
    root = tmp_path / "clips"
    root.mkdir()
    speaking(root / "long.mp4", 30, 0)
    speaking(root / "short.mp4", 22, 1)
    out = tmp_path / "results"
    words = ["bench", "--root", str(root), "--out", str(out), "--seed", "2"]
    first = CliRunner().invoke(app, words, catch_exceptions=False)
    assert (
        first.exit_code == 0
        and (out / "pairs.txt").read_text(encoding="utf-8") == "long.mp4\tshort.mp4\n"
    )
    assert (
        "1 drawn with seed 2" in first.stdout and "without a pair of their own: 1" in first.stdout
    )
    lines = (out / "results.jsonl").read_bytes()
    second = CliRunner().invoke(app, words, catch_exceptions=False)
    assert second.stdout == first.stdout and (out / "results.jsonl").read_bytes() == lines
    refused = CliRunner().invoke(app, ["bench", "--root", str(root), "--workers", "2"])
    assert refused.exit_code == 2
    video = out / "videos/mini/00000.mp4"
    video.unlink()
    third = CliRunner().invoke(app, words, catch_exceptions=False)
    assert (
        third.exit_code == 0
        and video.is_file()
        and (out / "results.jsonl").read_bytes().startswith(lines)
    )
    listed = tmp_path / "list.txt"
    listed.write_text("gone.mp4 short.mp4\n", encoding="utf-8")
    failed = CliRunner().invoke(app, [*words[:-2], str(listed)], catch_exceptions=False)
    assert (
        failed.exit_code == 1
        and "- 00000, all methods: " in failed.stdout
        and not list(out.rglob("*.mp4"))
    )


@pytest.mark.parametrize(
    "wrong",
    [["--model", "no-such-model"], ["--model", "judge"], ["--scorer", "mini"], ["--root", "none"]],
)
def test_what_bench_cannot_do_leaves_nothing_behind(tmp_path: Path, wrong: list[str]) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"so reading videos would be told of")
    words = ["bench", "--root", str(tmp_path), "--out", str(tmp_path / "results"), *wrong]
    result = CliRunner().invoke(app, words)
    assert (
        isinstance(result.exception, (LipSyncError, ValueError))
        and not (tmp_path / "results").exists()
    )
    assert "no pair can be drawn" not in str(result.exception)


def test_results_that_cannot_be_a_folder_are_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "pairs.txt").write_text("a.mp4 b.mp4\n", encoding="utf-8")
    words = [
        "bench",
        str(tmp_path / "pairs.txt"),
        "--root",
        str(tmp_path),
        "-o",
        str(tmp_path / "file"),
    ]
    assert "cannot be a folder for results" in str(CliRunner().invoke(app, words).exception)
