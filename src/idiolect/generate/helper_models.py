"""Helper models and negative prompts of a generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from idiolect.generate.generation_options import GenerationOptions
from idiolect.models.language_model import LanguageModel

__all__ = ["HelperModels"]


@dataclass(frozen=True)
class HelperModels:
    """Helper models and negative prompts; see `Generator.generate`."""

    amateur: LanguageModel | None = None
    assistant: LanguageModel | None = None
    negative_prompts: str | Sequence[str] | None = None

    def check(self, options: GenerationOptions) -> None:
        """Check that options and helpers do not contradict each other.

        Raises:
            ConfigError: They do.
        """
        options.check_models(
            amateur=self.amateur is not None,
            assistant=self.assistant is not None,
            negative_prompts=self.negative_prompts is not None,
        )
