"""ONNX: the model as a graph of standard operators, and the same with 8-bit weights."""

import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch

from pipeline.exporting.pixel_classifier import PixelClassifier, example, plain_operators

OPSET = 20
"""The first that has GELU as one operator."""
INPUT, OUTPUT, BATCH = "pixels", "probabilities", "N"
QUANTISED = ("MatMul", "Gemm", "LSTM")
"""Operators whose weights become 8-bit; convolutions, a small share, stay as they are."""


def write_onnx(model: PixelClassifier, path: Path, about: Mapping[str, str]) -> None:
    """Write the graph, for batches of any size; `about` is kept in it.

    By torch's exporter of traces. Its newer one takes twenty times as long, and leaves every LSTM with hundreds of
    operators that put its weights in ONNX's order: each inference would run them, and no quantiser looks behind them.
    """
    content = io.BytesIO()  # torch would report a full disk as something else
    with plain_operators(), _quiet():
        torch.onnx.export(
            model,
            (example(),),
            content,  # type: ignore[arg-type]  # the exporter of traces takes open files too
            dynamo=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: {0: BATCH}, OUTPUT: {0: BATCH}},
        )
    graph = onnx.load_from_string(content.getvalue())
    onnx.helper.set_model_props(graph, dict(about))
    onnx.checker.check_model(graph)
    path.write_bytes(graph.SerializeToString())


def write_int8(whole: Path, path: Path) -> None:
    """Write a copy of a graph whose weights have 8 bits; activations become so while it runs.

    One scale for each row of a weight. 7 of the 8 bits are used: without VNNI, sums of more would overflow.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet():
        quantize_dynamic(
            whole,
            path,
            op_types_to_quantize=list(QUANTISED),
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
        )


def metadata(classes: tuple[str, ...], version: str, weights_sha256: str) -> dict[str, str]:
    """What a graph says of itself to whoever has only that file."""
    return {"classes": json.dumps(list(classes)), "version": version, "weights_sha256": weights_sha256}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the advice of torch's exporter and ONNX Runtime's quantiser to the people who call them."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
