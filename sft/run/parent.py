"""The finished run whose adapter another one goes on from (`model.adapter`)."""

from pathlib import Path

from sft.config.sections import Config
from sft.model.base_identity import BaseIdentity
from sft.run.directory import check_learned, require_finished
from sft.run.manifest import Parent
from sft.system.errors import UserError


def read_parent(config: Config, base: BaseIdentity, tokenizer_sha256: str, template_sha256: str) -> Parent | None:
    """The run that `config` goes on from; None where its adapter is a fresh one.

    Raises UserError where that run has not finished or is damaged, or was trained with another base model, tokenizer or
    template than `base` and these.
    """
    if config.model.adapter is None:
        return None
    run = Path(config.model.adapter)
    manifest = require_finished(run)
    check_learned(run, manifest)
    known = BaseIdentity(manifest.base_commit, manifest.base_sha256)
    different = {
        "base model": any(known) and known != base,
        "tokenizer": manifest.identity.tokenizer != tokenizer_sha256,
        "prompt template": manifest.identity.template != template_sha256,
    }
    if names := [name for name, differs in different.items() if differs]:
        raise UserError(
            f"model.adapter: {run} was trained with another {' and another '.join(names)}; take its own (see "
            f"{run / 'config.yaml'}), or start without model.adapter"
        )
    return Parent(run=Path(run).name[:200], started=manifest.started, learned=manifest.learned_sha256)
