"""The door of a display: by which commands are run, and what productions can be started with."""

from __future__ import annotations

from pathlib import Path

from production import config as configuration
from production.errors import ProductionError
from production.recipe.load import find_recipe, known_recipes
from production.view.door import Door


def open_door(database: Path, config: Path | None) -> Door:
    """For the display of a manager, or of somebody who looks at ``database``."""

    def recipes() -> dict[str, str | None]:
        directories = configuration.load(config, database).recipe_directories(database)
        bases: dict[str, str | None] = {}
        for name in known_recipes(directories):
            try:
                bases[name] = find_recipe(name, directories).base
            except ProductionError:  # one that is broken cannot be started
                continue
        return bases

    return Door(database.absolute(), config.absolute() if config else None, recipes)
