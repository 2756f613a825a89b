"""Production types: what goes in, which script makes it, what comes out.

A type is a TOML file, a built-in one as well as a user's own; docs/recipes.md is its reference.
"""

from production.recipe.load import find_recipe, known_recipes, modules_file, parse_recipe
from production.recipe.model import ArchiveInput, BaseInput, Input, Option, Output, Recipe

__all__ = [
    "ArchiveInput",
    "BaseInput",
    "Input",
    "Option",
    "Output",
    "Recipe",
    "find_recipe",
    "known_recipes",
    "modules_file",
    "parse_recipe",
]
