"""Upload a model of a run to the Hugging Face hub, with its card, in one commit."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from idiolect.errors import CheckpointError, IdiolectError, InputError, OfflineError
from idiolect.models.model_directory import belongs_to_model, replacing
from idiolect.pipeline.publishing.base_model import UNKNOWN, read_base
from idiolect.pipeline.publishing.model_card import SYSTEMS, write_model_card
from idiolect.text.files import read_json
from idiolect.training.progress import notice

if TYPE_CHECKING:
    from huggingface_hub import HfApi

__all__ = ["Publication", "prepare_publication", "push_to_hub"]

_CARD = "README.md"
_CARD_OF_BASE = "BASE_MODEL_CARD.md"
_STAGES = {"tuning": "tune", "plain.tuning": "plain.tune"}


@dataclass(frozen=True)
class Publication:
    """The files to upload: those of a model, with its own card instead of the base's."""

    repository: str
    """`owner/name` on the hub."""
    stage: str
    """The stage that trained the model."""
    license: str
    files: dict[str, Path | bytes]
    """By path in the repository."""

    @property
    def card(self) -> str:
        """The card of the model."""
        content = self.files[_CARD]
        assert isinstance(content, bytes)
        return content.decode()

    @property
    def size(self) -> int:
        """The number of bytes to upload."""
        files = self.files.values()
        return sum(len(one) if isinstance(one, bytes) else one.stat().st_size for one in files)

    def write(self, folder: str | Path) -> None:
        """Write the files into a folder, for inspection.

        Raises:
            InputError: The folder holds files, or cannot be written to.
        """
        if os.path.isdir(folder) and os.listdir(folder):
            raise InputError(f"{folder} is not empty", hint="name a new folder")
        with replacing(Path(folder)) as fresh:
            for name, content in self.files.items():
                path = fresh / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content if isinstance(content, bytes) else content.read_bytes())


def prepare_publication(
    run: str | Path, repository: str, *, stage: str | None = None, license_id: str | None = None
) -> Publication:
    """Collect the files of a run's model, and write its card.

    Args:
        run: The folder of a finished run.
        repository: `owner/name` on the hub.
        stage: The stage whose model is published; by default the one whose encoder the index uses.
        license_id: The hub's identifier of the licence; by default that of the base.

    Raises:
        InputError: There is no finished run or no such model, or a name is invalid.
        CheckpointError: A record of the run is damaged.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    run = Path(run)
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise InputError(f"{repository!r} is not a name on the hub", hint=str(error)) from error
    if repository.count("/") != 1:
        raise InputError(f"{repository} has no owner", hint=f"such as yourname/{repository}")
    if not (run / "metrics.json").is_file():
        raise InputError(f"no finished run in {run}", hint="start or resume it with idiolect run")
    stage = stage or _stage_of_index(run)
    model = run / "stages" / stage / "model"
    if stage not in SYSTEMS or not (model / "config.json").is_file():
        known = [name for name in SYSTEMS if (run / "stages" / name / "model").is_dir()]
        raise InputError(
            f"the run has no model of a stage {stage!r}", hint=f"choose one of {', '.join(known)}"
        )
    base = read_base(run, model)
    stated = license_id or base.license
    if stated == UNKNOWN:
        notice(f"the licence of {base.name} is unknown; state it if you know it")
    files: dict[str, Path | bytes] = {
        path.relative_to(model).as_posix(): path
        for path in sorted(model.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }
    if base.card is not None:
        files[_CARD_OF_BASE] = base.card
    files[_CARD] = write_model_card(run, stage, repository, base, stated).encode()
    return Publication(repository, stage, stated, files)


def push_to_hub(
    run: str | Path,
    repository: str,
    *,
    stage: str | None = None,
    license_id: str | None = None,
    private: bool = True,
    token: str | None = None,
    endpoint: str | None = None,
) -> str:
    """Upload a model of a run to the hub, with a card written from the run.

    All files are uploaded in one commit, or none. The commit also deletes files of an earlier model
    that this one lacks, since they would be read as part of it; other files stay. A new repository
    is private unless `private` is false; an existing one keeps its visibility.

    Args:
        run: The folder of a finished run.
        repository: `owner/name` on the hub.
        stage: The stage whose model is published; by default the one whose encoder the index uses.
        license_id: The hub's identifier of the licence; by default that of the base.
        private: Whether a new repository is private.
        token: An access token; by default that of `hf auth login` or of `HF_TOKEN`.
        endpoint: URL of another hub.

    Returns:
        The URL of the commit.

    Raises:
        InputError: There is nothing to publish, a name is invalid, or the hub rejected it.
        OfflineError: The hub cannot be reached.
        CheckpointError: A record of the run is damaged.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    found = prepare_publication(run, repository, stage=stage, license_id=license_id)
    api = HfApi(endpoint=endpoint, token=token, library_name="idiolect")
    try:
        _check_token(api, token)
        api.create_repo(repository, private=private, exist_ok=True, repo_type="model")
        before = {name for name in api.list_repo_files(repository) if "/" not in name}
        before -= set(found.files)
        old = [name for name in before if belongs_to_model(name) or name == _CARD_OF_BASE]
        commit = api.create_commit(
            repository,
            [
                *(CommitOperationAdd(name, content) for name, content in found.files.items()),
                *(CommitOperationDelete(name) for name in sorted(old)),
            ],
            commit_message=f"Model of the stage {found.stage}, with its card",
        )
    except IdiolectError:
        raise
    except Exception as error:  # from the hub, a proxy, a resolver, or a changed file
        # No `from error`: its request contains the token.
        raise _explained(error, repository, token) from None
    return str(commit.commit_url)


def _stage_of_index(run: Path) -> str:
    """Return the stage that trained the encoder which the index uses."""
    system = str(read_json(run / "stages" / "index" / "chosen.json").get("system"))
    if system == "base":
        raise InputError(
            "the run's index uses its base, which answered better than what was trained from it",
            hint="name a stage to publish its model all the same",
        )
    if system not in _STAGES:
        raise CheckpointError(
            f"{run} does not say which encoder its index uses", hint="run it again"
        )
    return _STAGES[system]


def _check_token(api: HfApi, token: str | None) -> None:
    """Raise an error if there is no token: the hub's own message names no remedy."""
    from huggingface_hub import get_token

    if not (token or get_token()):
        raise InputError("there is no access token", hint="`hf auth login`, or set HF_TOKEN")


def _explained(error: Exception, repository: str, token: str | None) -> IdiolectError:
    """Return one of our errors, without the token in its message."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import HfHubHTTPError

    secrets = [secret for secret in (token, get_token()) if secret]

    def shown(text: str) -> str:
        for secret in secrets:
            text = text.replace(secret, "…")
        return " ".join(text.split()[:40])

    if isinstance(error, HfHubHTTPError) and error.response is not None:
        status = error.response.status_code
        hint = "check the repository's name and the token's rights"
        if status == 429 or status >= 500:
            hint = "try again later; nothing was published"
        what = shown(error.server_message or str(error))
        return InputError(f"the hub refused {repository}: {status}, {what}", hint=hint)
    # Depending on its version, the hub's client uses httpx or httpx2.
    names = {kind.__name__ for kind in type(error).__mro__}
    if "TransportError" in names or isinstance(error, OSError):
        return OfflineError(
            f"the hub cannot be reached: {shown(str(error))}",
            hint="check the network; nothing was published",
        )
    return InputError(f"{repository}: {shown(str(error))}", hint="nothing was published")
