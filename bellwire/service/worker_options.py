"""The command line of `worker.py`."""

import argparse
import re
from collections.abc import Sequence

from bellwire.service.processes import MAX_PROCESSES
from bellwire.targets import WORKER_CHANNELS, Channel


class WorkerOptions(argparse.Namespace):
    """The options of one worker process."""

    channels: list[Channel]
    no_workflows: bool
    #: How many processes the worker consists of.
    processes: int
    #: The number of this process, from 0; None for the one that starts and supervises the others, or that is alone.
    nth: int | None


def parse_options(arguments: Sequence[str]) -> WorkerOptions:
    """Parse the arguments, or print what is wrong and raise SystemExit."""
    return option_parser().parse_args(arguments, WorkerOptions())


def option_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="worker.py", description="Run Bellwire's workflows and channels. Settings: BELLWIRE_*, TEMPORAL_*."
    )
    channels_help = f"only these, separated by commas: {','.join(WORKER_CHANNELS)}"
    parser.add_argument("--channels", type=_channels, default=list(WORKER_CHANNELS), help=channels_help)
    parser.add_argument("--no-workflows", action="store_true", help="poll the channels only")
    parser.add_argument(
        "--processes",
        type=_processes,
        default=1,
        metavar="N",
        help="run this many processes; each listens on the ports after those of the one before",
    )
    parser.add_argument("--nth", type=int, help=argparse.SUPPRESS)
    return parser


def _channels(text: str) -> list[Channel]:
    try:
        channels = [Channel(name.strip()) for name in text.split(",") if name.strip()]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; channels are {', '.join(WORKER_CHANNELS)}") from error
    if elsewhere := [channel for channel in channels if channel not in WORKER_CHANNELS]:
        raise argparse.ArgumentTypeError(f"{', '.join(elsewhere)} runs in services, not in this worker")
    return channels


def _processes(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text) or not 1 <= int(text) <= MAX_PROCESSES:
        raise argparse.ArgumentTypeError(f"must be 1 to {MAX_PROCESSES}")
    return int(text)
