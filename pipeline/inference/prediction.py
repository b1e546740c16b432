"""What a model says of an image, or why a file is none."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Prediction:
    """The probability of each class: of `classes` in the model's order, adding up to 1."""

    classes: tuple[str, ...]
    probabilities: tuple[float, ...]

    @property
    def best(self) -> str:
        """The most probable class."""
        return self.top(1)[0][0]

    @property
    def probability(self) -> float:
        """The probability of the most probable class."""
        return self.top(1)[0][1]

    def top(self, count: int) -> list[tuple[str, float]]:
        """The most probable classes and their probabilities, best first; equals in the model's order."""
        ranked = sorted(zip(self.classes, self.probabilities, strict=True), key=lambda one: -one[1])
        return ranked[:count]


@dataclass(frozen=True)
class Classified:
    """A file and what the model says of it. A name that is not UTF-8 has its other bytes as surrogates."""

    path: str
    prediction: Prediction


@dataclass(frozen=True)
class Unreadable:
    """A file or a folder that cannot be read, and why."""

    path: str
    reason: str
