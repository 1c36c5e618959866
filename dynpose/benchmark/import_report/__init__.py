"""The figures of `dynpose benchmark gpu-report` into docs/benchmarks.md.

import fills what the page marks: tables between <!-- gpu-report: NAME --> and <!-- /gpu-report -->. Cells and blocks
for which the report has no figures stay as they are. Importing a report again changes nothing.
"""
