"""Other libraries' call shapes for this package's attacks."""
