"""Whether row scores are of the settings that the study's file has now. No torch here."""

from pathlib import Path

from sft.config.changes import Settings, changes, learning_settings
from sft.config.load import load_config
from sft.config.sections import Config
from sft.generation.settings import effective_settings
from sft.prompt.template import is_template
from sft.system.errors import UserError
from studies.context_qa.plan import Study, Unit, changed_setting
from studies.context_qa.scores import Header, read_header, read_rows

PLACES = ("path", "revision", "validation", "test")
"""Keys of section `data` that say where rows are; which rows were learned and asked is checked by the rows."""


def trained_with(config: Config) -> Settings:
    """The settings of a training, without its model and template, which scores name, and the places of its rows."""
    settings = learning_settings(config)
    settings["data"] = {key: value for key, value in (settings["data"] or {}).items() if key not in PLACES}
    return {section: settings[section] for section in ("data", "quantization", "lora", "training")}


def asked_with(study: Study, system: str) -> Config:
    """The configuration that a system is trained or, untuned, asked with."""
    trained = study.trained().get(system)
    words = study.training(*trained) if trained else [*study.common, *study.untuned.get(system, [])]
    return load_config(study.config, words)


def check_scored(study: Study, unit: Unit) -> None:
    """Raise UserError when a unit's scores are of other settings than the study has now, or damaged."""
    path = unit.scores(study)
    changed = _changed(study, unit, read_header(path))
    if changed:
        raise UserError(f"{path}: was {changed}; move {path.parent} away, or set scores=…")
    rows, asked = study.rows_scores(unit.rows), study.rows[unit.rows]
    made = read_rows(rows).header
    for key, wanted in (("categories", asked.categories), ("rows", asked.rows)):
        if made.get(key) != wanted:
            raise UserError(
                f"{rows}: was made otherwise: rows.{unit.rows}.{key} was {made.get(key)}, is {wanted}; "
                "move all scores away, or set scores=…"
            )


def _changed(study: Study, unit: Unit, header: Header) -> str | None:
    """In which way a unit was scored otherwise, as a participle; None where it was not."""
    config = asked_with(study, unit.system)
    if (header.system, header.rows) != tuple(unit):
        return f"scored as {header.system}/{header.rows}, not as {unit.system}/{unit.rows}"
    if header.model not in (config.model.base, Path(config.model.base).name):
        return f"answered by another model: {header.model}, not {config.model.base}"
    if header.shots != study.rows[unit.rows].shots:
        return f"answered otherwise: rows.{unit.rows}.shots was {header.shots}, is {study.rows[unit.rows].shots}"
    for name in unit.decodings(study):
        if name not in header.decodings:
            return f"answered otherwise: nothing was decoded as {name}"
        wanted = effective_settings(config.generation | study.decodings[name])
        if changed := changed_setting(header.decodings[name], wanted):
            return f"answered otherwise: {changed}"
    if not is_template(config.prompt.template, header.template.name, header.template.sha256):
        return f"asked otherwise: prompt.template was {header.template.name}, is {_name(config.prompt.template)}"
    if unit.system in study.trained():
        if not header.training:
            return "not trained"
        if found := changes(header.training.settings.model_dump(), trained_with(config)):
            return f"trained otherwise: {'; '.join(found)}"
    return None


def _name(template: object) -> str:
    return template if isinstance(template, str) else "another text"
