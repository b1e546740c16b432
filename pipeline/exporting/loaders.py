"""The loaders that go with exported models: ten lines each, which run where seqpipe is not installed."""

from dataclasses import dataclass

from pipeline.exporting.formats import CARD_FILE, ExportFormat

LINES = 10
"""Of code, without blank lines, comments and the docstring."""
_IMAGE = 'ImageOps.exif_transpose(ImageOps.fit(Image.open(name).convert("RGB"), (32, 32), Image.Resampling.BICUBIC))'


@dataclass(frozen=True)
class Loader:
    """The parts in which loaders differ."""

    requires: tuple[str, ...]
    """Packages, as pip knows them."""
    imports: str
    """After `import`."""
    model: str
    """The lines that load the model."""
    compute: str
    """An expression: the probabilities of `pixels`, a batch of one image."""


LOADERS = {
    ExportFormat.onnx: Loader(
        ("onnxruntime", "numpy", "pillow"),
        "numpy as np, onnxruntime",
        'model = onnxruntime.InferenceSession(folder / "model.onnx")',
        'model.run(None, {"pixels": pixels})[0]',
    ),
    ExportFormat.pt2: Loader(
        ("torch", "numpy", "pillow"),
        "numpy as np, torch",
        'model = torch.export.load(folder / "model.pt2").module()',
        "model(torch.from_numpy(pixels))",
    ),
    ExportFormat.safetensors: Loader(
        ("torch", "numpy", "pillow", "safetensors"),
        "numpy as np, safetensors.torch; from sequencer_models import catalog, inference  # in this folder",
        'model = catalog.build(card["architecture"].pop("name"), len(card["classes"]), **card["architecture"])\n'
        'model.load_state_dict(safetensors.torch.load_file(folder / "model.safetensors"))',
        'inference.probabilities(model, pixels, card["mean"], card["std"], mirrored=card["mirrored"])',
    ),
}


def file_of(format: ExportFormat) -> str:
    """The name of a format's loader."""
    return f"load_{format.value}.py"


def source_of(format: ExportFormat) -> str:
    """The loader of a format, as a program and as a module with one function, `classify`."""
    loader = LOADERS[format]
    return f'''"""Classifies images with {format.file}, without seqpipe: python {file_of(format)} cat.png dog.jpg

Needs: pip install {" ".join(loader.requires)}
"""
import json, pathlib, sys, {loader.imports}
from PIL import Image, ImageOps

folder = pathlib.Path(__file__).parent
card = json.loads((folder / "{CARD_FILE}").read_bytes())
{loader.model}
def classify(name):
    pixels = np.array({_IMAGE})[None]  # 1 x 32 x 32 x 3, uint8
    return dict(zip(card["classes"], {loader.compute}[0].tolist()))
if __name__ == "__main__": print(*(f"{{name}}: {{classify(name)}}" for name in sys.argv[1:]), sep="\\n")
'''
