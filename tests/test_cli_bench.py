"""`lipsync bench` and `lipsync batch`: rows, switches, addresses, resuming."""

import json
from pathlib import Path

import pytest
import typer
from test_benchmark import speaking
from typer.testing import CliRunner

from lipsync_core.cli import app
from lipsync_core.cli_bench import OptionalAddress, read_rows
from lipsync_core.media import probe


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
        ("face,audio\na,b\n", "['out'] are missing"),
        ("face,audio,out,colour\na,b,c,d\n", "['colour'] are no options"),
        ("face,audio,out\na,b,c\nd,e,c\n", "several rows write c"),
        ("face,audio,out\na,b\n", "line 2 has not as many cells"),
    ],
)
def test_tables_that_cannot_be_meant_are_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(typer.BadParameter) as error:
        read_rows(table(tmp_path, text))
    assert said in str(error.value)


def test_a_list_of_clips_is_dubbed_and_resumed(tmp_path: Path) -> None:
    speaking(tmp_path / "face.mp4", 12, 0)
    path = table(
        tmp_path,
        "face,audio,out,fps,colour-match,tag,feather\n"
        "face.mp4,face.mp4,one.mp4,12.5,true,no,\n"
        "face.mp4,none.wav,two.mp4,,,,\n"
        "face.mp4,face.mp4,three.mp4,,,,9\n",
    )
    first = CliRunner().invoke(app, ["batch", str(path)], catch_exceptions=False)
    assert first.exit_code == 1 and "1 of 3 dubbed" in first.stdout
    assert probe(tmp_path / "one.mp4").fps == 12.5
    lines = [json.loads(line) for line in (tmp_path / "jobs.results.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["id"] for line in lines] == ["one.mp4", "two.mp4", "three.mp4"]
    assert (
        lines[0]["result"]["model"] == "mini" and "MediaError" in lines[1]["error"] and "--feather" in lines[2]["error"]
    )
    written = (tmp_path / "one.mp4").stat().st_mtime_ns
    path.write_text(path.read_text(encoding="utf-8").replace(",9\n", ",0.1\n"), encoding="utf-8")
    again = CliRunner().invoke(app, ["batch", str(path)], catch_exceptions=False)
    assert "2 of 3 dubbed" in again.stdout and (tmp_path / "one.mp4").stat().st_mtime_ns == written
    assert (tmp_path / "three.mp4").is_file()


def test_a_benchmark_from_pairs_of_its_own(tmp_path: Path) -> None:
    root = tmp_path / "clips"
    root.mkdir()
    speaking(root / "long.mp4", 30, 0)
    speaking(root / "short.mp4", 22, 1)
    out = tmp_path / "results"
    words = ["bench", "--root", str(root), "--out", str(out), "--seed", "2"]
    first = CliRunner().invoke(app, words, catch_exceptions=False)
    assert first.exit_code == 0 and (out / "pairs.txt").read_text(encoding="utf-8") == "long.mp4 short.mp4\n"
    assert "1 drawn with seed 2" in first.stdout and "without a pair of their own: 1" in first.stdout
    lines = (out / "results.jsonl").read_bytes()
    second = CliRunner().invoke(app, words, catch_exceptions=False)
    assert second.stdout == first.stdout and (out / "results.jsonl").read_bytes() == lines
    refused = CliRunner().invoke(app, ["bench", "--root", str(root), "--workers", "2"])
    assert refused.exit_code == 2
