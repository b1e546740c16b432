"""The model card of a registered version as inference reads it; `stages.register` writes it, with more in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ModelCard:
    """How to build a model and how to feed it; `mean` and `std` are per channel, on the 0..255 scale."""

    model: str
    architecture: Mapping[str, Any]
    """The fields of the model that users can set."""
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mirrored: bool = False
    """Whether an image's probabilities are the mean of its own and those of its mirror image, left to right."""
    accuracy: float | None = None
    """On the test split."""
    weights_sha256: str | None = None
    """Of the file of weights; None if an older release registered it."""
    git_commit: str | None = None
    """Of the code that trained it; None if it is not known."""
    data_hash: str | None = None
    """Of the prepared data that it was trained and evaluated on; None if it is not known."""

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "ModelCard":
        """Read a card; raises `KeyError`, `TypeError` or `ValueError` for anything else."""
        architecture = dict(content["architecture"])
        card = cls(
            model=str(architecture.pop("name")),
            architecture=architecture,
            classes=tuple(map(str, content["classes"])),
            mean=tuple(map(float, content["mean"])),
            std=tuple(map(float, content["std"])),
            mirrored=bool(content.get("mirrored", False)),
            accuracy=content.get("test", {}).get("accuracy"),
            weights_sha256=content.get("weights_sha256"),
            git_commit=content.get("lineage", {}).get("git_commit"),
            data_hash=content.get("lineage", {}).get("data_hash"),
        )
        if not card.classes or len(set(card.classes)) != len(card.classes):
            raise ValueError("classes must be different names")
        if len(card.mean) != 3 or len(card.std) != 3 or not all(value > 0 for value in card.std):
            raise ValueError("mean and std must be three numbers, std above 0")
        return card

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads."""
        return {
            "architecture": {"name": self.model, **self.architecture},
            "classes": list(self.classes),
            "mean": list(self.mean),
            "std": list(self.std),
            "mirrored": self.mirrored,
            "test": {"accuracy": self.accuracy},
            "weights_sha256": self.weights_sha256,
            "lineage": {"git_commit": self.git_commit, "data_hash": self.data_hash},
        }
