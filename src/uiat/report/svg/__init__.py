"""Charts as SVG, written by hand: they need no library, work in print and in dark mode, and show values on hover."""
