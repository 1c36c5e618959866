"""Reports of predictions: an HTML page and its numbers as JSON."""

from .inputs import Annotation, ReportInput, is_run, read_predictions, read_run
from .page import write_report

__all__ = ["Annotation", "ReportInput", "is_run", "read_predictions", "read_run", "write_report"]
