"""`PromptTask`: a prompt template with its labels and demonstrations, saved as one file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from idiolect.errors import CheckpointError
from idiolect.generate.generator import Generator
from idiolect.prompting.demonstrations import Demonstrations, FixedDemonstrations
from idiolect.prompting.prompt_classifier import PromptClassifier
from idiolect.prompting.prompt_template import PromptTemplate
from idiolect.tasks.classify.labelled_texts import LabelledText
from idiolect.text.files import read_json, write_atomic
from idiolect.text.format_version import check_format, with_format

__all__ = ["PromptTask"]


@dataclass(frozen=True)
class PromptTask:
    """A template, its labels, and the demonstrations for every text."""

    template: PromptTemplate
    labels: tuple[str, ...]
    demonstrations: tuple[LabelledText, ...] = ()
    calibrated: bool = False
    """Whether probabilities are divided by those of content-free inputs."""

    def classifier(
        self, generator: Generator, demonstrations: Demonstrations | None = None
    ) -> PromptClassifier:
        """Return the classifier of this prompt, or of its template with other demonstrations."""
        return PromptClassifier(
            generator,
            self.template,
            self.labels,
            demonstrations or FixedDemonstrations(self.demonstrations),
            calibrated=self.calibrated,
        )

    def save(self, path: Path) -> None:
        """Write the prompt as JSON; create its folder if needed."""
        values = {
            "template": self.template.as_dict(),
            "labels": list(self.labels),
            "demonstrations": [_record(one) for one in self.demonstrations],
            "calibrated": self.calibrated,
        }
        text = json.dumps(with_format(values), ensure_ascii=False, indent=2)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, f"{text}\n".encode())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file that `save` wrote.

        Raises:
            CheckpointError: The file is damaged or of another kind.
            ConfigError: The template is not valid.
        """
        values = check_format(read_json(path), path)
        try:
            return cls(
                PromptTemplate.from_dict(values["template"]),
                tuple(map(str, values["labels"])),
                tuple(
                    LabelledText(str(one["text"]), str(one["label"]), one.get("text_pair"))
                    for one in values.get("demonstrations", [])
                ),
                values.get("calibrated") is True,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{path} is no prompt: {type(error).__name__} {error}",
                hint="give a file that idiolect prompt wrote",
            ) from error


def _record(example: LabelledText) -> dict[str, str | None]:
    record = {"text": example.text, "label": example.label}
    return record if example.text_pair is None else record | {"text_pair": example.text_pair}
