"""Everything that a deployment uses of Flower's private parts, in one room.

They may move with any release of Flower: ``pyproject.toml`` pins the minor version that the tests
ran with. To take a newer one, correct these files, pass the tests, and widen the pin.
"""
