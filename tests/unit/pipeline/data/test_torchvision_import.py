"""Each test imports torchvision in a process of its own: a process imports it only once."""

import subprocess
import sys


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_torchvision_imports_and_its_transforms_work():
    program = """
from pipeline.data.torchvision_import import import_torchvision
module = import_torchvision()
assert module is import_torchvision()
import gc; gc.collect()
import torch, torchvision
from torchvision.transforms import v2
assert module is torchvision
assert v2.functional.horizontal_flip(torch.tensor([[[1, 2]]])).tolist() == [[[2, 1]]]
assert hasattr(torch.ops.torchvision, "nms")
print(module.__name__)
"""
    assert run(program) == "torchvision"


def test_nothing_is_declared_where_torchvision_imports_by_itself():
    program = """
import sys, types
sys.modules["torchvision"] = whole = types.ModuleType("torchvision")
from pipeline.data import torchvision_import
assert torchvision_import.import_torchvision() is whole
print(len(torchvision_import._declared))
"""
    assert run(program) == "0"


def test_an_operator_that_is_there_is_not_declared_again():
    program = """
import types
from torch import library
declared = library.Library("torchvision", "FRAGMENT")
declared.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
from pipeline.data import torchvision_import

# any torchvision: one whose own operators load would declare them itself
answers = iter([RuntimeError("operator torchvision::qnms does not exist"), types.ModuleType("torchvision")])

def import_module(name):
    answer = next(answers)
    if isinstance(answer, Exception):
        raise answer
    return answer

torchvision_import.import_module = import_module
import torch
print(torchvision_import.import_torchvision().__name__, hasattr(torch.ops.torchvision, "qnms"))
"""
    assert run(program) == "torchvision True"


def test_importing_the_module_imports_neither_torch_nor_torchvision():
    program = """
import sys
import pipeline.data.torchvision_import
print([name for name in ("torch", "torchvision") if name in sys.modules])
"""
    assert run(program) == "[]"
