"""Report on run folders as one page of HTML that needs no network, and in Markdown, or as a table for a paper.

Reads files only.
"""

from uiat.runs.run_files import RunFiles, read_files
from uiat.system.extras import from_extra

with from_extra("report", "a report"):  # the whole package reads and draws with them
    import jinja2  # noqa: F401
    import PIL.Image  # noqa: F401

from uiat.report.inputs import Sample, Samples
from uiat.report.page import check_out, read_all, runs_with_images, write_report
from uiat.report.tables import FORMS, make_table

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
