"""Take a run's model elsewhere: plain PyTorch, ONNX, a torch.export program, the Hub, a verifier."""

from uiat.experiments.export.export import FORMATS, Exported, export_run

__all__ = ["FORMATS", "Exported", "export_run"]
