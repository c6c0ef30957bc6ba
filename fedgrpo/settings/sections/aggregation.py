"""Settings of what becomes of the clients' releases: who sums, which rule, which step."""

from __future__ import annotations

from fedgrpo.settings.sections.section import Names, Section


class AggregationSettings(Section):
    """Who applies the robust rule, and to what."""

    protocol: str = "buckets"
    """``buckets``: the server, to sums of at least ``secure.bucket_size`` clients under masks.
    ``committee``: four clients, to shares of each client's release; the server sees the result.
    ``plain``: the server, to each client's release, for a server that clients trust with it.
    """
    committee: Names = ()
    """The members, four or more, each as ``KEYS`` or ``KEYS@HOST:PORT``, with the keys that
    ``fedgrpo committee-key`` prints. The first four that are there compute a round; any two of all
    together could see every update. With addresses they connect directly, else through the server.
    Empty takes four nodes, which is for simulations.
    """


class SecureSettings(Section):
    """Secure aggregation in buckets."""

    bucket_size: int = 3
    """Least number of clients whose updates are summed under masks before the server sees anything.
    """


class RobustSettings(Section):
    """The rule over bucket means."""

    rule: str = "trimmed_mean"
    """trimmed_mean, median, mean, norm_checked (for small epsilon), and without noise after it
    nnm_trimmed_mean (nearest-neighbour mixing), multi_krum, geometric_median, centred_clipping; or
    a rule of a module or file, with options.
    """
    trim: int = 1
    """Bucket means dropped at either end: the number of attackers that the rule withstands."""
    momentum: float = 0.0
    """Decay of a mean over rounds that each client sends in the place of its update, so that honest
    clients look alike and attackers stand out; set ``server.momentum`` to 0 with it. 0 sends the
    update. For runs without a privacy unit, and under ``plain`` with noise by each client.
    """


class ServerSettings(Section):
    """The server's optimiser on the aggregated delta (arXiv 2003.00295)."""

    optimiser: str = "fedadam"
    """fedavg, fedavgm, fedadam, or an optimiser of a module or file, with options."""
    learning_rate: float = 0.01
    """Step size; 1 with fedavg applies the delta as it is."""
    final_rate: float = 0.1
    """The rate falls linearly to this share of itself by the last round."""
    momentum: float = 0.9
    """First-moment decay of fedavgm and fedadam."""
    second_momentum: float = 0.99
    """Second-moment decay of fedadam."""
    epsilon: float = 1e-8
    """Added to fedadam's denominator."""
