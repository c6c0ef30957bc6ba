"""What systemd is told: units that keep a server or a node running with as few rights as they need,
and, while one runs, that it is well.
"""

from fedgrpo.federation.deployment.units.reach import addresses_of, resolvers
from fedgrpo.federation.deployment.units.telling import keep_telling
from fedgrpo.federation.deployment.units.unit import Service, unit, user_unit

__all__ = ["Service", "addresses_of", "keep_telling", "resolvers", "unit", "user_unit"]
