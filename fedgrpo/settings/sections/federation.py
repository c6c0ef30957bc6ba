"""Settings of who takes part, in earnest and in simulation, and of where the run writes."""

from __future__ import annotations

from fedgrpo.settings.sections.section import Names, Section


class FederationSettings(Section):
    """Who takes part, and for how long the server waits."""

    min_clients: int = 9
    """Clients that must be online before a round starts, and finish it for its result to count."""
    cohort: int = 0
    """Clients that the server draws anew for each round among those online, before it asks any; 0
    asks all. At least ``min_clients``: what drops out is not replaced. No epsilon is smaller for
    it, since the server, who draws, sees who takes part. A simulation through Flower draws others
    once it is resumed, as its nodes then have other ids.
    """
    wait_s: float = 300.0
    """Seconds to wait for them."""
    round_timeout_s: float = 3600.0
    """Seconds for local training."""
    reply_timeout_s: float = 300.0
    """Seconds for each later message of a round."""


class SimulationSettings(Section):
    """Simulated clients and the faults among them. Ignored in deployment."""

    clients: int = 12
    """Virtual nodes."""
    byzantine: int = 0
    """How many of them attack, from the first."""
    attack: str = "reverse_boost"
    """A built-in attack (fedgrpo.attacks.attacks), or one of a module or file, with options."""
    boost: float = 10.0
    """Factor by which an attacker enlarges what it sends."""
    droppers: int = 0
    """How many of them drop out in some rounds, from the last."""
    stragglers: int = 0
    """How many, before the droppers, train in every round but answer too late in some."""
    dropout: float = 0.3
    """Probability that a dropper drops out of a round, or a straggler is late in it."""
    newcomers: int = 0
    """How many, before the stragglers, come late to the federation."""
    newcomers_from: int = 2
    """Round from which newcomers are there."""
    large: int = 0
    """How many, after those that attack, have ten times the prompts (built-in tasks only)."""
    cpus_per_client: int = 1
    """Cores given to a client while it trains: Flower's client-resources-num-cpus."""
    gpus_per_client: float = 0.0
    """Share of a GPU given to a client while it trains: Flower's client-resources-num-gpus."""

    @property
    def faulty(self) -> int:
        """Clients with a fault of any kind."""
        return self.byzantine + self.droppers + self.stragglers + self.newcomers


class RunSettings(Section):
    """Where this run writes. No part of what is computed."""

    directory: str = ""
    """Run directory. Empty makes ``runs/RUN_ID`` where the server process was started."""
    started_at: float = 0.0
    """Unix time from which wall time is counted. 0 means when the server starts."""
    report_to: Names = ()
    """Trackers that are told of each round, or of each step of training alone: ``tensorboard``,
    ``trackio``, ``wandb``, ``mlflow`` (extras of the same names), or a class of a module or file.
    They run where the run directory is; a node has none.
    """
