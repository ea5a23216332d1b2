"""The packages of the extra ``bench``, one a line: for an installation of each by itself."""

from __future__ import annotations

import tomllib
from pathlib import Path

project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text())
print("\n".join(project["project"]["optional-dependencies"]["bench"]))
