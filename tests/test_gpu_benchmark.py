"""The GPU's benchmark cannot rot: on a CPU it holds results against plain transformers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_without_a_gpu_the_benchmark_checks_results() -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "benchmarks/gpu.py", "--small"]
    said = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    parts = {line["part"]: line for line in map(json.loads, said.stdout.splitlines())}
    assert parts["decoding"]["tokens_per_s"] > 0
    assert parts["generate"]["tokens_per_s"] > 0
    assert {"skipped", "seconds", "not_finished_after_s"} & set(parts["trl_step"])
    assert parts["step"]["mismatch"] < 1e-6
    assert parts["apart"]["prompts"] == 6
    assert parts["federation"]["clients"] == 9
    assert parts["greedy"]["greedy_as_generate"] == 1
    assert parts["scored"]["furthest_logp"] < 1e-4
