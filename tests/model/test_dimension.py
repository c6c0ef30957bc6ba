"""The dimension is known before a model is loaded."""

import pytest

from fedgrpo.ground.errors import AdapterError, ModelError
from fedgrpo.model.base import load_base
from fedgrpo.model.dimension import adapter_dimension
from fedgrpo.model.lora import Adapter
from fedgrpo.settings import AdapterSettings, ModelSettings


@pytest.mark.parametrize("kind", ["ffa_lora", "lora", "tiny_lora"])
def test_the_counted_dimension_is_that_of_the_adapter(kind: str) -> None:
    settings = AdapterSettings.model_validate({"kind": kind, "rank": 2, "projection_dim": 3})
    model = ModelSettings()
    built = Adapter(load_base(model), settings)
    assert adapter_dimension(model, settings) == built.dimension


def test_layers_that_are_not_there_are_named() -> None:
    with pytest.raises((AdapterError, ValueError), match="none_such"):
        adapter_dimension(ModelSettings(), AdapterSettings(target_modules=("none_such",)))


def test_a_model_that_cannot_be_read_is_named(tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot be loaded: ValueError"):
        adapter_dimension(ModelSettings(name=str(tmp_path)), AdapterSettings())
