"""How far can a proxy be optimised against before the truth falls? Three seeds of ``rewardlab overopt``.

    python benchmarks/overopt.py --workers 2

The figures of each seed go to ``benchmarks/results/overopt/``, where a seed that is there is not run again, with the
page and the figures as SVG; the table goes to ``benchmarks/results/overopt.md`` and stdout.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from records import made

from rewardlab.studies.overopt import run_overopt
from rewardlab.studies.overopt_page import write_pages

RESULTS = Path(__file__).resolve().parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    result = run_overopt(RESULTS / "overopt", seeds=options.seeds, workers=options.workers, report=print)
    write_pages(result, RESULTS / "overopt")
    how = made("one thread for each seed, no GPU")
    versions = ", ".join(f"{name} {version}" for name, version in how["versions"].items())
    text = (
        f"Made by `benchmarks/overopt.py`: {len(result.seeds)} seeds. Rewards are above the policy's mean, in the "
        "gold's unit (logits); the columns are told in [overoptimisation.md](../../docs/overoptimisation.md).\n\n"
        f"{result.markdown()}\n{how['date']}, {versions}; {how['machine']}\n"
    )
    (RESULTS / "overopt.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
