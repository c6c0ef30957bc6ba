"""Rules over bucket means that withstand attackers: plain functions over a (B, d) array."""

from fedgrpo.robust.rules import combine, declare_rule, register_rule, sensitivity

__all__ = ["combine", "declare_rule", "register_rule", "sensitivity"]
