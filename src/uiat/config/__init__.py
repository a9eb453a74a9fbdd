"""The settings of a run as frozen dataclasses, and as YAML."""
