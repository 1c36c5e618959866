"""Files of predictions that other tools read: one module a format.

They are written from the record of a prediction run, one image at a time, so that a format can be added to a finished
run without predicting again.
"""

from .registry import FORMATS, check_formats, write_formats

__all__ = ["FORMATS", "check_formats", "write_formats"]
