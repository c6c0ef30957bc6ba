"""Every example runs, and shows what it says."""

from __future__ import annotations

import ast
import json
import re
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest

import fedgrpo
from tests.report.runs import START

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_one_round_learns_beside_an_attacker_by_the_robust_rule_only(
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = (EXAMPLES / "one_round.py").read_text()
    assert len(source.splitlines()) <= 150
    runpy.run_path(str(EXAMPLES / "one_round.py"), run_name="__main__")
    robust, by_clients, plain = (
        [float(figure) for figure in re.findall(r"(\d\.\d+) -> (\d\.\d+)", line)[0]]
        for line in capsys.readouterr().out.splitlines()
    )
    assert max(robust[1], by_clients[1]) < 1.6
    assert plain[1] > 2.2


@pytest.mark.slow
def test_a_strategy_of_ones_own_caps_the_step() -> None:
    example = runpy.run_path(str(EXAMPLES / "my_strategy.py"))
    settings = {**example["SETTINGS"], "rounds": 1, "evaluation.prompts": 4}
    result = fedgrpo.simulate(settings, strategy=example["CappedStep"])
    assert result.history[-1].applied
    moved = float(np.linalg.norm(result.adapter.vector))  # FFA-LoRA begins at zero.
    assert moved == pytest.approx(example["LARGEST_STEP"], rel=1e-4)


@pytest.mark.slow
def test_the_notebook_is_valid_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = json.loads((EXAMPLES / "quickstart.ipynb").read_text("utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    check_cells(notebook["cells"])
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec(compile(quick(cell), cell["id"], "exec"), names)
    assert names["result"].history[-1].finished == 9
    assert names["rounds"] == [0, 2, 3]
    assert len(names["answers"]) == 5
    assert (tmp_path / "quickstart-adapter" / "adapter_model.safetensors").exists()


def quick(cell: dict[str, Any]) -> str:
    """A cell's code, with fewer rounds than a reader wants."""
    return "".join(cell["source"]).replace('"rounds": 12', '"rounds": 3')


def check_cells(cells: list[dict[str, Any]]) -> None:
    """What nbformat 4.5 asks of cells; outputs are left to whoever runs them."""
    assert len({cell["id"] for cell in cells}) == len(cells)
    for cell in cells:
        assert isinstance(cell["metadata"], dict)
        assert all(isinstance(line, str) for line in cell["source"])
        if cell["cell_type"] == "code":
            assert (cell["execution_count"], cell["outputs"]) == (None, [])
        else:
            assert cell["cell_type"] == "markdown"


def test_the_logger_of_the_readme_writes_a_row_a_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (EXAMPLES / "README.md").read_text("utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    told: list[Any] = []
    monkeypatch.setattr(fedgrpo, "simulate", lambda _, callbacks: told.extend(callbacks), False)
    monkeypatch.chdir(tmp_path)
    exec(compile(ast.parse(code), "README.md", "exec"), {})
    (logger,) = told
    logger.on_round(START)
    logger.on_round(replace(START, round=1))
    assert len((tmp_path / "demo.csv").read_text().splitlines()) == 3
