"""A system from its settings."""

from pmmo.config.settings import Settings
from pmmo.model.released import Released
from pmmo.model.systems import Gmu, Mlp, Mmo, Pmmo, Sizes, System

SYSTEM_CLASSES = {"gmu": Gmu, "mlp": Mlp, "mmo": Mmo, "pmmo": Pmmo, "released": Released}


def build_system(settings: Settings, sizes: Sizes) -> System:
    """A freshly initialised system; its weights come from torch's global generator."""
    return SYSTEM_CLASSES[settings.system](settings, sizes)
