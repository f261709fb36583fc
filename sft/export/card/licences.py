"""Whose base model and whose data a run was made of, as others can name them, and under which licences."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from sft.config.sections import Config
from sft.export.request import NOT_ON_HUB
from sft.model.families import licence_of
from sft.run.manifest import FinishedManifest

BUILT, DATA_LICENCES, ROWS = yaml.safe_load(Path(__file__).with_name("known.yaml").read_text(encoding="utf-8")).values()


class Base(NamedTuple):
    """The base model as others can name it; `hub_id` is None for a directory that is on no hub."""

    name: str
    hub_id: str | None
    commit: str | None

    @property
    def licence(self) -> str | None:
        """The hub's name of its licence; None when it is not known."""
        return licence_of(self.hub_id or "")


class Data(NamedTuple):
    """The training rows as others can name them; `hub_id` is None for a file of the user's own."""

    hub_id: str | None
    licence: str | None


def named_base(config: Config, manifest: FinishedManifest | None, base_id: str | None) -> Base:
    """The base model of a run; `base_id` is its hub id where the run was trained from a directory, "none": none."""
    base, built = config.model.base, BUILT.get(config.model.build or "")
    hub_id = base_id or built or (None if config.model.build or os.path.isabs(base) else base)
    if base_id == NOT_ON_HUB:
        hub_id = None
    commit = (manifest and manifest.base_commit) or config.model.revision
    return Base(hub_id or Path(base).name, hub_id, commit if hub_id == base else None)


def named_data(config: Config, manifest: FinishedManifest | None, licence: str | None) -> Data:
    """The training data of a run; `licence` is what the user says of a file of their own, or of data not known."""
    if manifest is None:
        return Data(None, licence)
    paths = [source.path for source in config.data.sources]
    alone = paths[0] if len(paths) == 1 and not os.path.isabs(paths[0]) else None
    name = ROWS.get(manifest.identity.data) or alone
    return Data(name if name and "/" in name else None, licence or DATA_LICENCES.get(name or ""))


def licence_fields(base: str | None, data: str | None) -> dict[str, Any]:
    """The front matter's licence: none while one of the two is unknown."""
    if base is None or data is None:
        return {}
    names = {*base.split("-and-"), data}  # a base may be under two
    for permissive in ("mit", "apache-2.0"):  # they allow the other's terms for the whole
        if len(names) > 1:
            names.discard(permissive)
    if names == {"cc-by-sa-3.0", "cc-by-sa-4.0"}:  # 3.0 allows a later version
        names = {"cc-by-sa-4.0"}
    if len(names) == 1:
        return {"license": names.pop()}
    return {"license": "other", "license_name": "-and-".join(sorted(names, reverse=True))}
