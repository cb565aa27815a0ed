"""On PYTHONPATH of every process of the engine: the operators that torchvision's CUDA build cannot bring to a CPU."""

try:
    import torch
except ImportError:
    torch = None  # type: ignore[assignment]

if torch is not None:
    library = torch.library.Library("torchvision", "DEF")  # kept: its operators go with it
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
