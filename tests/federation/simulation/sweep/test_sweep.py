"""A sweep runs what is missing, and its table says what its runs came to."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedgrpo.cli.app import app
from fedgrpo.federation.simulation.sweep import heat_map, results
from fedgrpo.federation.simulation.sweep.plan import Sweep, read_sweep
from fedgrpo.ground.errors import SettingsError

SHIPPED = Path(__file__).parents[4] / "simulations" / "sweeps"
SCENARIO = """
rounds = 1
[simulation]
clients = 3
[federation]
min_clients = 3
[aggregation]
protocol = "plain"
[robust]
rule = "mean"
trim = 0
[data]
prompts_per_client = 20
min_prompts = 20
[grpo]
prompts_per_step = 4
group_size = 4
max_completion_length = 4
[privacy]
unit = "none"
[evaluation]
prompts = 8
[model]
device = "cpu"
"""
SWEEP = """
scenario = "small.toml"
seeds = [0, 1]
reference = "none"
[changes]
"server.learning_rate" = 0.01
[rows]
none = {}
reverse = { "simulation.byzantine" = 1 }
[columns]
mean = {}
median = { "robust.rule" = "median" }
"""


def written(folder: Path, sweep: str = SWEEP) -> Path:
    (folder / "small.toml").write_text(SCENARIO)
    (folder / "sweep.toml").write_text(sweep)
    return folder / "sweep.toml"


def made_up(sweep: Sweep) -> list[results.Line]:
    """Attacked by ``reverse``, seed 0 loses half of its gain of 0.4 and seed 1 a quarter."""
    ends = {("none", 0): 0.6, ("none", 1): 0.6, ("reverse", 0): 0.4, ("reverse", 1): 0.5}
    return [
        results.line_of(cell, {"sampled_start": 0.2, "sampled": ends[cell.row, cell.seed]})
        for cell in sweep.cells
    ]


def test_a_sweep_is_rows_by_columns_by_seeds(tmp_path: Path) -> None:
    sweep = read_sweep(written(tmp_path))
    assert len(sweep.cells) == len({cell.key for cell in sweep.cells}) == 8
    assert [cell.seed for cell in sweep.cells[:4]] == [0] * 4
    last = sweep.cells[-1].settings
    assert (last.simulation.byzantine, last.robust.rule, last.seed) == (1, "median", 1)
    assert last.server.learning_rate == 0.01


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ('scenario = "small.toml"\nseeds = []', "seeds"),
        ('scenario = "small.toml"\nseed = [1]', "seed is no key"),
        ("seeds = [1]", "names no scenario"),
        ('scenario = "small.toml"\nreference = "x"', "reference = 'x'"),
        (
            'scenario = "small.toml"\n[rows]\na = { "robust.rulle" = "mean" }',
            "a: unknown setting robust.rulle",
        ),
        ('scenario = "small.toml"\nrows = 3', "rows are no tables"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_runs(
    tmp_path: Path, wrong: str, said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        read_sweep(written(tmp_path, wrong))


def test_the_table_has_means_errors_and_paired_losses(tmp_path: Path) -> None:
    sweep = read_sweep(written(tmp_path))
    lines = made_up(sweep)
    results.write_results(tmp_path / "a.csv", lines)
    read = results.read_results(tmp_path / "a.csv")
    table = results.table(sweep, read).splitlines()
    assert table[0] == "| sampled | mean | median |"
    assert table[2] == "| none | 0.600 ± 0.000 | 0.600 ± 0.000 |"
    # Losses of 50 and 25 %.
    assert table[3].startswith("| reverse | 0.450 ± 0.050, -37.5 ± 12.5 % |")
    assert "0.400*, -50.0* %" in results.table(sweep, [x for x in read if x["seed"] == "0"])
    with pytest.raises(SettingsError, match="no run tells 'height'"):
        results.table(sweep, read, "height")


def test_a_tasks_loss_is_a_share_of_what_the_reference_gains_on_it(tmp_path: Path) -> None:
    sweep = read_sweep(written(tmp_path, SWEEP.replace("[0, 1]", "[0]")))
    ends = {"none": 0.5, "reverse": 0.4}
    lines = [
        results.line_of(cell, {"sampled:add_start": 0.1, "sampled:add": ends[cell.row]})
        for cell in sweep.cells
    ]
    assert "| reverse | 0.400*, -25.0* % |" in results.table(sweep, lines, "sampled:add")


@pytest.mark.parametrize("file", sorted(SHIPPED.glob("*.toml")), ids=lambda file: str(file.stem))
def test_every_shipped_sweep_can_be_read(file: Path) -> None:
    assert read_sweep(file).cells


def test_lines_of_other_settings_and_failed_runs_do_not_count(tmp_path: Path) -> None:
    sweep = read_sweep(written(tmp_path))
    lines = made_up(sweep)
    changed = read_sweep(written(tmp_path, SWEEP.replace("0.01", "0.02")))
    assert "0.6" not in results.table(changed, lines)
    failed = [line | {"problem": "it broke"} for line in lines]
    assert "0.6" not in results.table(sweep, failed)


def test_a_heat_map_of_half_a_sweep_can_be_drawn(tmp_path: Path) -> None:
    sweep = read_sweep(written(tmp_path))
    found = results.values(sweep, made_up(sweep)[:3], "sampled")
    heat_map.draw(sweep, found, "sampled", tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_sweep_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    file, csv = written(tmp_path), tmp_path / "results.csv"
    lines = made_up(read_sweep(file))
    results.write_results(csv, lines[:7])
    arguments = ["sweep", str(file), "--csv", str(csv), "--processes", "1"]
    ran = CliRunner().invoke(app, arguments)
    assert ran.exit_code == 0, ran.output
    assert "1 of 8 runs to do" in ran.output
    kept = results.read_results(csv)
    assert [results.key_of(line) for line in kept] == [results.key_of(line) for line in lines]
    new = kept[-1]
    assert float(new["cpu_s"]) > 0
    assert new["epsilon"] == new["problem"] == ""
    tasks = [float(new[f"sampled:{task}"]) for task in ("add", "maximum", "reverse", "sort")]
    assert sum(tasks) / 4 == pytest.approx(float(new["sampled"]), abs=0.2)
    assert all(0 <= float(new[f"sampled:{task}_start"]) <= 1 for task in ("add", "maximum"))
    again = CliRunner().invoke(app, [*arguments, "--figure", "greedy"])
    assert "0 of 8 runs to do" in again.output
    shown = CliRunner().invoke(app, [*arguments, "--plot", "--figure", "sampled"])
    assert shown.exit_code == 0, shown.output
    assert (tmp_path / "results.png").exists()
