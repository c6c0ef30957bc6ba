"""The committee: four data holders who compute a robust aggregate on shares and open only that."""

from fedgrpo.secure.committee.noise import EffectiveNoise, discrete_gaussian, effective_noise

__all__ = ["EffectiveNoise", "discrete_gaussian", "effective_noise"]
