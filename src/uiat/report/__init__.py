"""Report on run folders as one page of HTML that needs no network, and in Markdown, or as a table for a paper.

Reads files only.
"""

from uiat.report.inputs import Sample, Samples
from uiat.report.page import check_out, read_all, runs_with_images, write_report
from uiat.report.tables import FORMS, make_table
from uiat.runs.run_files import RunFiles, read_files

__all__ = [
    "FORMS",
    "RunFiles",
    "Sample",
    "Samples",
    "check_out",
    "runs_with_images",
    "read_all",
    "read_files",
    "make_table",
    "write_report",
]
