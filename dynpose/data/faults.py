"""Faults of a data set: the loader stops at the first, ``dynpose check-data`` collects all of them."""

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from .schema import DatasetError

__all__ = ["Fault", "FaultLog", "raise_fault", "short"]


@dataclass(frozen=True)
class Fault:
    """One faulty item.

    Attributes:
        source (str): the file; "" if ``problem`` names it.
        kind (str): type of the faulty items: "boxes", "keypoints", ...
        problem (str): the item and its fault.
        remedy (str): the advice; "" if ``problem`` contains it.
    """

    source: str
    kind: str
    problem: str
    remedy: str = ""

    @classmethod
    def from_error(cls, kind: str, error: DatasetError) -> "Fault":
        """The fault behind a DatasetError, under another kind.

        Args:
            kind (str): kind of the fault.
            error (DatasetError): from :meth:`error`, or any other with a complete message.
        """
        return cls("", kind, str(error)) if error.fault is None else replace(error.fault, kind=kind)

    @property
    def reason(self) -> str:
        """The problem and the remedy, without the source."""
        return "; ".join(filter(None, (self.problem, self.remedy)))

    def __str__(self):
        return f"{self.source}: {self.reason}" if self.source else self.reason

    def error(self) -> DatasetError:
        """The fault as an exception to raise, with the fault in its attribute ``fault``."""
        error = DatasetError(str(self))
        error.fault = self
        return error


def raise_fault(fault: Fault) -> NoReturn:
    """Stop at a fault.

    Raises:
        DatasetError: always.
    """
    raise fault.error()


class FaultLog:
    """Collects faults: counts all of them and keeps a few examples of each kind.

    Args:
        num_examples (int): number of examples of each kind.

    Attributes:
        counts (dict[str, int]): by kind.
        examples (dict[str, list[Fault]]): by kind.
        broken_images (set[str]): file names, for callers that check images too.

    Example::

        >>> log = FaultLog()
        >>> records = load_pose_json("people.json", "images", on_fault=log)
        >>> log.counts
        {'boxes': 3}
    """

    def __init__(self, num_examples: int = 5):
        self.num_examples = num_examples
        self.counts: defaultdict[str, int] = defaultdict(int)
        self.examples: defaultdict[str, list[Fault]] = defaultdict(list)
        self.broken_images: set[str] = set()

    def __call__(self, fault: Fault) -> None:
        """Note a fault."""
        self.counts[fault.kind] += 1
        if len(self.examples[fault.kind]) < self.num_examples:
            self.examples[fault.kind].append(fault)

    def __len__(self):
        return sum(self.counts.values())


def short(value: Any) -> str:
    """Shorten a value of a file for a message, on one line."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
