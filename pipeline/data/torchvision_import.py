"""The one place that imports torchvision.

The Linux wheels of torchvision are linked against CUDA. Beside a CPU build of torch its compiled operators do not
load, and the import fails with "operator torchvision::nms does not exist", although nothing here calls them. With
their schemas declared first, datasets, transforms and image reading work.
"""

from functools import cache
from importlib import import_module
from types import ModuleType

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
# kept, because a torch Library that is garbage-collected removes its schemas
_declared: list[object] = []


@cache
def import_torchvision() -> ModuleType:
    """Import torchvision; if its operators cannot load, declare those that the import needs, and only those.

    A declared operator has no implementation: `torchvision.ops.nms` then raises `RuntimeError`.
    """
    try:
        return import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise

    import torch
    from torch import library

    declared = library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name, schema in _SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            declared.define(schema)  # type: ignore[no-untyped-call]
    _declared.append(declared)
    return import_module("torchvision")
