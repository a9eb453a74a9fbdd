"""The run folder: its files, their reader and writer."""
