"""Draw charts as SVG by hand, for the report.

`uiat analyse` draws with matplotlib, and both stay: a study makes figures for a paper, in print and as PNG, while the
report makes a page whose charts show values under the pointer, follow the page into dark mode and onto paper, are read
aloud by screen readers. Where ticks stand is matplotlib's choice in both; nothing is drawn in both.
"""
