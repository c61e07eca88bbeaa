"""Curves of held-out figures, several runs in one picture.

python -m train.curves bce plateau.png runs/plateau-bce runs/plateau-contrastive
"""

import argparse
import json
from pathlib import Path

from lipsync_core.errors import TrainingError
from lipsync_core.runtime.atomic import atomic_write
from train.harness import print_line, run_command


def figures(run: Path, name: str) -> tuple[list[int], list[float]]:
    """Steps, and what evaluations.jsonl of ``run`` says of ``name`` at them."""
    path = run / "evaluations.jsonl"
    if not path.exists():
        raise TrainingError(
            f"{path} is not there; expected the folder of a run that has been evaluated"
        )
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if not rows or name not in rows[0]:
        known = ", ".join(key for key in rows[0] if key != "step") if rows else "nothing yet"
        raise TrainingError(f"{path} holds no {name}; it holds {known}")
    kept = [row for row in rows if row[name] is not None]
    return [row["step"] for row in kept], [row[name] for row in kept]


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("figure", help="a name in evaluations.jsonl")
    parser.add_argument("out", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    args = parser.parse_args(argv)
    curves = {run.name: figures(run, args.figure) for run in args.runs}
    from matplotlib.figure import Figure

    picture = Figure((6, 3.2), dpi=120, layout="constrained")
    axes = picture.subplots()
    for name, (steps, values) in curves.items():
        axes.plot(steps, values, label=name)
    axes.set(xlabel="step", ylabel=args.figure)
    axes.grid(alpha=0.3)
    axes.legend()
    with atomic_write(args.out) as part:
        picture.savefig(part, format=args.out.suffix.lstrip(".") or "png")
    print_line(
        f"{args.out}: "
        f"{', '.join(f'{name} {values[-1]:.3f}' for name, (_, values) in curves.items())}"
    )


if __name__ == "__main__":
    run_command(main)
