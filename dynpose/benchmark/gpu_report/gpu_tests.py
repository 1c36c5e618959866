"""A part of the report: the tests marked gpu, in several processes; each outcome is written as soon as it is known."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dynpose.benchmark.report import join, table
from dynpose.utils.atomic import atomic_open

_TESTS = Path(__file__).parents[3] / "tests"


class Recorder:
    """A plugin of pytest that writes the outcomes of all tests that have ended.

    Args:
        path: the JSON file.
    """

    def __init__(self, path: Path):
        self.path = path
        self.report: dict[str, dict[str, Any]] = {"outcomes": {}, "seconds": {}, "messages": {}}

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Record a phase of a test: set-up, the test itself, or its end."""
        if report.when != "call" and report.passed:
            return
        name = report.nodeid
        self.report["outcomes"][name] = report.outcome
        self.report["seconds"][name] = round(report.duration, 2)
        if report.failed:
            self.report["messages"][name] = str(getattr(report.longrepr, "reprcrash", None) or report.longrepr)[-500:]
        with atomic_open(self.path) as file:
            file.write(json.dumps(self.report, indent=2) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the part; 1 = a test has failed, 2 = none was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("paths", nargs="+", help="files and folders within tests/")
    args = parser.parse_args(argv)
    if not _TESTS.is_dir():
        print(f"{_TESTS} does not exist: the tests are not installed; run the report in a checkout", file=sys.stderr)
        return 2
    import pytest

    recorder = Recorder(args.json)
    parallel = ["-n", str(args.processes)] if args.processes > 1 and importlib.util.find_spec("xdist") else []
    paths = [str(_TESTS / path) for path in args.paths]
    with contextlib.redirect_stdout(sys.stderr):
        code = pytest.main(
            ["-v", "-m", "gpu", "-p", "no:cacheprovider", f"--rootdir={_TESTS.parent}", *parallel, *paths], [recorder]
        )
    print(_tables(recorder.report))
    return int(code != pytest.ExitCode.OK)


def _tables(report):
    outcomes = list(report["outcomes"].values())
    counts = ", ".join(f"{outcomes.count(outcome)} {outcome}" for outcome in dict.fromkeys(outcomes))
    failed = [{"test": name, "message": " ".join(text.split())} for name, text in report["messages"].items()]
    slow = sorted(report["seconds"].items(), key=lambda item: -item[1])[:5]
    return join(
        f"{counts or 'no tests'}.",
        table("Failed", [{key: value.replace("|", "\\|") for key, value in row.items()} for row in failed], "github"),
        table("The longest", [{"test": name, "seconds": f"{seconds:.1f}"} for name, seconds in slow], "github"),
    )


if __name__ == "__main__":
    sys.exit(main())
