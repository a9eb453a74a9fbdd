"""Draw charts as SVG by hand, for the report.

`uiat analyse` draws with matplotlib, and both stay: a study makes figures for a paper, in print and as PNG, while the
report makes a page whose charts show values under the pointer, follow the page into dark mode and onto paper, are read
aloud by screen readers, and need no library, so that a report can be made wherever runs are. Nothing is drawn in both.
"""
