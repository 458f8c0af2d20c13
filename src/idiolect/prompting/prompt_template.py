"""`PromptTemplate`: combine an instruction, few-shot examples and a text into a prompt."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from idiolect.errors import ConfigError
from idiolect.tasks.classify.labelled_texts import LabelledText

__all__ = ["PromptTemplate"]

_FIELD = re.compile(r"\{(text|text_pair)\}")


@dataclass(frozen=True)
class PromptTemplate:
    r"""A prompt for classification; the model continues it with the answer of a label.

    >>> template = PromptTemplate("Is it good?", "Review: {text}\nAnswer:", {"1": "yes", "0": "no"})
    >>> print(template.render(LabelledText("Fine."), [LabelledText("Bad.", "0")]))
    Is it good?
    <BLANKLINE>
    Review: Bad.
    Answer: no
    <BLANKLINE>
    Review: Fine.
    Answer:

    Raises:
        ConfigError: The example has no place for the text, or two labels have the same answer.
    """

    instruction: str = ""
    """Text at the beginning; may be empty."""
    example: str = "{text}\nLabel:"
    """Template of each example, without its answer; `{text}` and `{text_pair}` are replaced."""
    answers: Mapping[str, str] = field(default_factory=dict)
    """The answer of each label; by default the label itself."""
    separator: str = "\n\n"
    """Text between instruction and examples."""

    def __post_init__(self) -> None:
        if "{text}" not in self.example:
            raise ConfigError(
                f"the example {self.example!r} has no place for the text", hint="write {text} there"
            )
        answers = list(self.answers.values())
        if len(set(answers)) < len(answers) or not all(answer.strip() for answer in answers):
            raise ConfigError(f"the answers are {answers}", hint="give each label its own")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read a template from a table of a file.

        Raises:
            ConfigError: Unknown names or values of another type.
        """
        texts = ("instruction", "example", "separator")
        if unknown := sorted(set(values) - {*texts, "answers"}):
            raise ConfigError(
                f"unknown setting of a template: {unknown[0]}",
                hint=f"known: {', '.join(texts)}, answers",
            )
        if wrong := [name for name in texts if not isinstance(values.get(name, ""), str)]:
            raise ConfigError(f"{wrong[0]} is {values[wrong[0]]!r}", hint="it must be a text")
        answers = values.get("answers", {})
        if not isinstance(answers, Mapping) or not all(
            isinstance(one, str) for one in answers.values()
        ):
            raise ConfigError(f"answers is {answers!r}", hint='such as {"0": "no", "1": "yes"}')
        return cls(**values)

    def as_dict(self) -> dict[str, Any]:
        """Return the settings by name."""
        names = ("instruction", "example", "answers", "separator")
        return {name: getattr(self, name) for name in names} | {"answers": dict(self.answers)}

    def with_changes(self, **changes: Any) -> Self:
        """Return a template that differs in some settings."""
        return replace(self, **changes)

    def answer(self, label: str) -> str:
        """Return the answer of a label, with the space that separates it from the prompt."""
        return f" {self.answers.get(label, label)}"

    def render(self, text: LabelledText, demonstrations: Sequence[LabelledText] = ()) -> str:
        """Return the prompt that the model continues with an answer.

        Args:
            text: The text in question.
            demonstrations: Solved examples, in their order in the prompt.
        """
        solved = [self._example(one) + self.answer(str(one.label)) for one in demonstrations]
        first = [self.instruction] if self.instruction else []
        return self.separator.join([*first, *solved, self._example(text)])

    def _example(self, text: LabelledText) -> str:
        values = {"text": text.text, "text_pair": text.text_pair or ""}
        # Replace in one pass, so that braces inside a text are kept.
        return _FIELD.sub(lambda match: values[match[1]], self.example)
