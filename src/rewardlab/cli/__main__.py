"""``python -m rewardlab.cli``: the command, for launchers that start modules."""

from rewardlab.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
