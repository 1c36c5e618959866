"""The output of `dynpose benchmark import`."""

from __future__ import annotations

from typing import Any


def tables(report: dict[str, Any], style: str) -> str:
    """Write what was filled.

    Args:
        report: from :func:`~.run.measure`.
        style: not used; there is no table.
    """
    kept = ", ".join(report["kept"])
    lines = [
        f"{report['docs']}: {report['device']}, commit {report['commit']}",
        f"filled: {', '.join(report['filled']) or 'nothing'}",
        *([f"unchanged, the report has no figures: {kept}"] if kept else []),
        *([f"copied: {', '.join(report['images'])}"] if report["images"] else []),
    ]
    return "\n".join(lines)
