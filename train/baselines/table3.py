"""Table 3 of the paper on any data: experts of 1, 3 and 5 frames, frozen and fine-tuned.

    python -m train.baselines.table3 train/configs/table3.toml SHARDS OUT

Does an expert serve better frozen, and when it sees more frames? Trains experts that see 1, 3 and 5
frames, and for each two generators that differ in one thing: whether the expert stays frozen, or is
trained on generated faces as LipGAN's discriminator is. Every run has a folder and a TOML of its
own in OUT; finished runs are not repeated, so the same command continues. Writes OUT/table3.md and
OUT/table3.json.
"""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lipsync_core.evaluation.tables import Mean, bootstrap_mean, format_markdown
from lipsync_core.models.sync_expert import SyncExpert
from lipsync_core.runtime.atomic import atomic_write
from lipsync_core.training.checkpoints import load_state, resume
from lipsync_core.training.clips import Clip
from lipsync_core.training.distributed import World
from lipsync_core.training.settings import read_settings, save_settings
from lipsync_core.training.sync_eval import score_expert
from lipsync_core.training.validation import compare_pictures
from train import expert, wav2lip
from train.expert_weights import read_expert
from train.harness import Job, positive, print_line, read_clips, run_command

# Off-sync accuracy in %, LSE-D, LSE-C of the paper (arXiv 2008.10010, table 3; LRS2).
PAPER = {
    (1, True): (55.6, 10.33, 3.19),
    (1, False): (79.3, 8.583, 4.845),
    (3, True): (72.3, 10.14, 3.214),
    (3, False): (87.4, 7.230, 6.533),
    (5, True): (73.6, 9.953, 3.508),
    (5, False): (91.6, 6.386, 7.789),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of a table.

    Attributes:
        expert: settings of the experts; ``window`` is set row by row.
        generator: settings of the generators; ``expert_learns`` is set row by row.
        judged_clips: clips to evaluate on at the end, of all speakers in turn; intervals need many.
    """

    expert: expert.Settings
    generator: wav2lip.Settings
    judged_clips: int = 47


@dataclass(frozen=True, slots=True)
class Row:
    """Means over clips with 95 % intervals.

    All but ``accuracy`` are the judge's figures of the generator (L2).

    Attributes:
        window: frames that the expert sees.
        learns: whether the expert was fine-tuned.
        accuracy: share of held-out windows that are nearer to their own sound than to another of
            the clip, by the expert as it ends.
        dub_distance: distance of dubs with other people's sound.
        dub_confidence: confidence of these dubs.
        rebuilt_distance: distance of clips rebuilt with their own sound.
        rebuilt_confidence: confidence of these clips.
    """

    window: int
    learns: bool
    accuracy: Mean
    dub_distance: Mean
    dub_confidence: Mean
    rebuilt_distance: Mean
    rebuilt_confidence: Mean


def measured(
    window: int,
    learns: bool,
    listener: SyncExpert,
    found: Sequence[dict[str, float]],
    clips: Sequence[Clip],
    *,
    apart: int,
) -> Row:
    """Return the row of a finished run.

    Args:
        window: frames that the expert sees.
        learns: whether the expert was fine-tuned.
        listener: the expert as it ends.
        found: the judge's figures of each clip.
        clips: the held-out clips.
        apart: least distance of wrong sounds in frames.
    """
    shares = [score_expert(listener, clip, apart=apart)["off_sync"] for clip in clips]

    def mean(name: str) -> Mean:
        return bootstrap_mean([figures[name] for figures in found])

    return Row(
        window,
        learns,
        bootstrap_mean(shares),
        mean("distance"),
        mean("confidence"),
        mean("rebuilt_distance"),
        mean("rebuilt_confidence"),
    )


def table(rows: Sequence[Row]) -> str:
    """Return the rows as Markdown, with the paper's figures in the last column."""
    header = [
        "frames",
        "expert",
        "off-sync accuracy, %",
        "dub: distance",
        "confidence",
        "rebuilt: distance",
        "confidence",
        "paper",
    ]
    lines = [
        [
            str(row.window),
            "fine-tuned" if row.learns else "frozen",
            row.accuracy.percent(),
            *map(
                str,
                (
                    row.dub_distance,
                    row.dub_confidence,
                    row.rebuilt_distance,
                    row.rebuilt_confidence,
                ),
            ),
            " / ".join(f"{value:g}" for value in PAPER[row.window, row.learns]),
        ]
        for row in rows
    ]
    return format_markdown(header, lines)


def as_toml(settings: Any, table: str = "") -> str:
    """Format frozen settings as the TOML that `read_settings` reads back.

    Args:
        settings: a dataclass; None is left out.
        table: name of the table that it is in.
    """
    values = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
    plain = {k: v for k, v in values.items() if v is not None and not dataclasses.is_dataclass(v)}
    nested = {k: v for k, v in values.items() if dataclasses.is_dataclass(v)}
    lines = [f"{name} = {json.dumps(value)}" for name, value in plain.items()]
    return (
        "\n".join(
            lines
            + [
                f"\n[{table}{name}]\n{as_toml(value, f'{table}{name}.')}"
                for name, value in nested.items()
            ]
        )
        + "\n"
    )


def run_file(path: Path, settings: Any) -> str:
    """Write the settings of a run, and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as part:
        part.write_text(as_toml(settings), encoding="utf-8")
    return str(path)


def finished(out: Path, steps: int) -> bool:
    """Return whether the run in ``out`` has taken all its steps."""
    return resume(out / "last.pt", {}).step >= steps


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("run", type=Path)
    options.add_argument("shards")
    options.add_argument("out", type=Path)
    options.add_argument("--judge", default="judge")
    options.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    options.add_argument("--threads", type=positive, default=1)
    args = options.parse_args(argv)
    settings = read_settings(args.run, Settings)
    common = ["--device", args.device, "--threads", str(args.threads)]
    job = Job(args, replace(settings.generator, judged_clips=settings.judged_clips), World())
    _, strangers = read_clips(job, settings.generator.size, least=40)
    judge = read_expert(args.judge)
    rows: list[Row] = []
    for window in (1, 3, 5):
        teaching = replace(settings.expert, window=window)
        teacher = args.out / f"expert-{window}"
        save_settings(teacher, teaching, recipe="expert")
        if not finished(teacher, teaching.plan.steps):
            expert.main(
                [
                    run_file(args.out / f"expert-{window}.toml", teaching),
                    args.shards,
                    str(teacher),
                    *common,
                ]
            )
        for learns in (True, False):
            learning = replace(settings.generator, expert_learns=learns)
            name = f"generator-{window}-{'fine-tuned' if learns else 'frozen'}"
            out, state = args.out / name, str(teacher / "last.pt")
            save_settings(out, learning, recipe="wav2lip")
            if not finished(out, learning.plan.steps):
                run = run_file(args.out / f"{name}.toml", learning)
                wav2lip.main(
                    [run, args.shards, str(out), "--expert", state, "--judge", args.judge, *common]
                )
            listener = read_expert(state)
            if learns:
                load_state(out / "last.pt", {"expert": listener})
            model = wav2lip.RECIPE.load_trained(out / "last.pt").eval()
            found = [figures for figures, _ in compare_pictures(model, strangers, judge)]
            rows.append(
                measured(
                    window, learns, listener.eval(), found, strangers, apart=settings.expert.apart
                )
            )
            print_line(table(rows[-1:]).splitlines()[-1])
    text = table(rows) + (
        f"\n\nOff-sync accuracy, then the judge's ({args.judge}, L2) verdicts on {len(strangers)} "
        "held-out clips; 95 % intervals, bootstrap over clips. The paper: accuracy / LSE-D / LSE-C "
        "by SyncNet on LRS2, which compare with ours "
        "in order alone.\n"
    )
    with atomic_write(args.out / "table3.md") as part:
        part.write_text(text, encoding="utf-8")
    with atomic_write(args.out / "table3.json") as part:
        part.write_text(
            json.dumps([dataclasses.asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8"
        )
    print_line(text)


if __name__ == "__main__":
    run_command(main)
