"""Find out what a folder or a name contains: a run, an index, an encoder or a language model.

A run has an index with its encoder, a language model, the original and the extended vocabulary, and
a report. An index has its encoder. A model has only itself.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from idiolect.errors import IdiolectError, InputError
from idiolect.models.registry import find_family
from idiolect.recommend.recommender_location import is_recommender, recommender_folder
from idiolect.search.index_location import RUN_INDEX, is_index, run_inside
from idiolect.search.store.ledger import Ledger
from idiolect.text.files import read_json
from idiolect.text.hub import is_known_model

__all__ = ["ServedFolder"]

_LANGUAGE_MODELS = ("pretrain", "distill", "extend")
"""The stages of a run whose model may be a language model, latest first."""


@dataclass(frozen=True)
class ServedFolder:
    """A run, an index or a model."""

    kind: Literal["run", "index", "model"]
    path: str

    @classmethod
    def find(cls, path: str) -> ServedFolder:
        """Detect what is at a path.

        Raises:
            InputError: There is nothing that can be served.
        """
        folder = Path(path)
        if (folder / "stages").is_dir():
            if not (folder / RUN_INDEX).is_dir():
                raise InputError(
                    f"the run {folder} has no index yet", hint="`idiolect run` resumes it"
                )
            return cls("run", path)
        if is_index(folder):
            return cls("index", path)
        if not is_known_model(path) and not folder.exists() and path.count("/") != 1:
            from idiolect.text.suggestions import similar_path

            raise InputError(
                f"there is no {path}",
                hint=similar_path(folder) or "pass a run, an index, or a model",
            )
        if not (folder / "config.json").is_file() and (hint := run_inside(folder)):
            raise InputError(f"{folder} holds no index or model itself", hint=hint)
        return cls("model", path)

    @property
    def index(self) -> Path | None:
        """The folder of the index."""
        if self.kind == "model":
            return None
        return Path(self.path) / RUN_INDEX if self.kind == "run" else Path(self.path)

    @property
    def language_model(self) -> str | None:
        """The language model that the run trained."""
        for stage in _LANGUAGE_MODELS if self.kind == "run" else ():
            model = Path(self.path, "stages", stage, "model")
            if (model / "config.json").is_file():
                return str(model) if _continues_texts(model) else None
        return None

    @property
    def recommender(self) -> str | None:
        """The recommender in the run's folder."""
        folder = recommender_folder(Path(self.path))
        found = self.kind == "run" and is_recommender(folder)
        return str(folder) if found else None

    @property
    def vocabularies(self) -> tuple[Path, Path] | None:
        """The run's configuration, which names the base, and the folder of the extended model."""
        extended = Path(self.path, "stages", "extend", "model")
        if self.kind != "run" or not extended.is_dir():
            return None
        return Path(self.path, "idiolect.toml"), extended

    @property
    def report(self) -> Path | None:
        """The run's report."""
        report = Path(self.path, "report.html")
        return report if self.kind == "run" and report.is_file() else None

    @property
    def version(self) -> str:
        """Changes when the index or model is replaced, but not when items are written.

        It is empty while there is none because it is being replaced.
        """
        stamps = []
        for name in ("outputs.json", "config.json", "modules.json"):
            folder = Path(self.path, "stages", "index") if self.kind == "run" else Path(self.path)
            try:
                found = (folder / name).stat()
            except OSError:
                continue
            stamps.append(f"{name} {found.st_ino} {found.st_mtime_ns}")
        if self.index is not None:
            stamps.append(_ledger_version(self.index / "ledger.db"))
        return " ".join(stamps) if all(stamps) else ""


def _ledger_version(path: Path) -> str:
    """Return what writes to a ledger do not change: its inode, since a copy that was changed may
    replace the original, and its epoch. It is empty if there is no ledger.
    """
    try:
        with closing(Ledger(path, 0.1)) as ledger, ledger.reading() as db:
            query = "SELECT value FROM settings WHERE name = 'epoch'"
            epoch = db.execute(query).fetchone()[0]
        return f"{path.stat().st_ino} {epoch}"
    except (InputError, FileNotFoundError):
        return ""
    except IdiolectError as error:
        return f"damaged: {error}"


def _continues_texts(model: Path) -> bool:
    """Return whether a saved model predicts the next token, judging by its settings."""
    kind = find_family(read_json(model / "config.json")).kind
    return kind == "causal" or kind == "encoder-decoder"
