"""Pictures of a run, by matplotlib."""

from fedgrpo.report.plots.picture import draw, plot_run

__all__ = ["draw", "plot_run"]
