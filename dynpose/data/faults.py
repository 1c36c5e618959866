"""What is wrong with a data set: one fault at a time for the loader, all of them for ``dynpose check-data``."""

from collections import defaultdict
from dataclasses import dataclass

from .schema import DatasetError

__all__ = ["Fault", "FaultLog", "raise_fault", "short"]


@dataclass(frozen=True)
class Fault:
    """One faulty item.

    Attributes:
        source (str): the file.
        kind (str): what it is of: "boxes", "keypoints", ...
        problem (str): names the item and what is wrong with it.
        mend (str): what to do.
    """

    source: str
    kind: str
    problem: str
    mend: str

    @classmethod
    def from_error(cls, source, kind, error):
        """The fault that a DatasetError tells of."""
        problem, _, mend = str(error).removeprefix(f"{source}: ").rpartition("; ")
        return cls(source, kind, problem or mend, mend if problem else "correct it")

    def __str__(self):
        return f"{self.source}: {self.problem}; {self.mend}"

    def error(self):
        """The fault as an exception, to be raised."""
        return DatasetError(str(self))


def raise_fault(fault):
    """Stop at a fault.

    Raises:
        DatasetError: always.
    """
    raise fault.error()


class FaultLog:
    """Collects faults: all are counted, of each kind a few are kept.

    Args:
        num_examples (int): kept of each kind.

    Attributes:
        counts (dict[str, int]): by kind.
        examples (dict[str, list[Fault]]): by kind.
        broken_images (set[str]): for whoever checks images too: file names.

    Example::

        >>> log = FaultLog()
        >>> records = load_pose_json("people.json", "images", on_fault=log)
        >>> log.counts
        {'boxes': 3}
    """

    def __init__(self, num_examples=5):
        self.num_examples = num_examples
        self.counts = defaultdict(int)
        self.examples = defaultdict(list)
        self.broken_images = set()

    def __call__(self, fault):
        """Note a fault."""
        self.counts[fault.kind] += 1
        if len(self.examples[fault.kind]) < self.num_examples:
            self.examples[fault.kind].append(fault)

    def __len__(self):
        return sum(self.counts.values())


def short(value):
    """A value of a file in a message: on one line, and cut to a length."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
