"""The parts of a report, as plan.yaml lists them."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

import yaml

_PLAN = Path(__file__).with_name("plan.yaml")


@dataclass(frozen=True)
class Part:
    """One part of the report: a command that runs in a separate process.

    Attributes:
        name: of its files.
        title: for the index.
        seconds: its budget.
        words: arguments of ``python -m``, with the fields {output}, {work} and {seconds}.
        max_seconds: the most that it may use of what earlier parts leave over; None = all of it.
    """

    name: str
    title: str
    seconds: float
    words: tuple[str, ...]
    max_seconds: float | None = None

    def command(self, output: Path, work: Path, seconds: float) -> list[str]:
        """Fill in the fields.

        Args:
            output: folder of the report.
            work: temporary folder that all parts share.
            seconds: time until the part is stopped.
        """
        return [word.format(output=output, work=work, seconds=f"{seconds:.0f}") for word in self.words]


def read_plan(rehearse: bool = False) -> list[Part]:
    """Read the parts in their order.

    Args:
        rehearse: whether to read the commands with tiny shapes for a CPU.
    """
    key = "rehearsal" if rehearse else "command"
    return [
        Part(row["name"], row["title"], row["seconds"], tuple(shlex.split(row[key])), row.get("max_seconds"))
        for row in yaml.safe_load(_PLAN.read_text())
    ]
