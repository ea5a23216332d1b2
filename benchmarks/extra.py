"""The packages of an extra, one a line: for an installation of each by itself."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text())
print("\n".join(project["project"]["optional-dependencies"][sys.argv[1]]))
