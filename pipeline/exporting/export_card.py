"""The README of an exported model: what it is, what it takes and gives, how well it does, and how to load it."""

from collections.abc import Sequence

from pipeline.exporting import loaders
from pipeline.exporting.formats import CARD_FILE, ExportFormat
from pipeline.inference.model_card import ModelCard


def export_card(card: ModelCard, version: str, formats: Sequence[ExportFormat], measured: Sequence[str]) -> str:
    """The page, in Markdown; `measured` are lines on what was measured of the files."""
    accuracy = "not known" if card.accuracy is None else f"{100 * card.accuracy:.2f} % of the test images"
    commit = card.git_commit or "not known"
    facts = [
        f"- Model: {card.model} of {version}, trained on CIFAR-10 with seqpipe (commit {commit}).",
        f"- Classes: {', '.join(card.classes)}. It knows nothing else: whatever an image shows becomes one of them.",
        f"- Accuracy: {accuracy}{', each seen as it is and mirrored' if card.mirrored else ''}.",
        "- Input: N x 32 x 32 x 3 pixels (RGB, whole numbers from 0 to 255). Output: N x "
        f"{len(card.classes)} probabilities.",
    ]
    inside = "Normalisation, softmax and mirrored views are part of the ONNX and PT2 files."
    uses = [
        f"    pip install {' '.join(loaders.LOADERS[format].requires)}\n    python {loaders.file_of(format)} cat.png"
        for format in formats
    ]
    return "\n".join(
        [
            f"# {card.model}, {len(card.classes)} classes",
            "",
            *facts,
            "",
            f"{inside} `{CARD_FILE}` has the rest. The loaders cut the largest centred square and resize it to "
            "32 x 32 pixels, as `seqpipe predict` does, but show what is transparent in its own "
            "colour, not as white.",
            "",
            "## Use",
            "",
            "\n\n".join(uses),
            "",
            "## Measured when it was exported",
            "",
            *(f"- {line}" for line in measured),
            "",
        ]
    )
