"""Faster passes with the same result: compilation, CUDA graphs, inference copies, cached layers."""
