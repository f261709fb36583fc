"""What metrics know of Japanese words: the tables of lexicon.yaml. No torch here."""

from pathlib import Path
from typing import Any

from sft.system.yaml_text import read_yaml

LEXICON: dict[str, Any] = read_yaml(Path(__file__).with_name("lexicon.yaml"))
