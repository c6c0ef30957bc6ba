"""A step that works on buffers alone: as it is on a CPU, captured once as a CUDA graph on a GPU.

Launching a small model's kernels one by one from Python takes ten times as long as they do. What a
graph asks of a step: no tensor that the step reads or writes may move, and nothing may wait for the
device. ``tests/grpo/rollout/test_decoding.py`` holds every step against both on a CPU.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

T = TypeVar("T")

WARM_UP = 2
"""Runs before a capture: libraries make their workspaces and plans in them."""
MOST_KEPT = 8
"""Sets of buffers with their graphs that a model keeps."""


class Replay:
    """Runs a step again and again.

    Parameters
    ----------
    step:
        Reads and writes buffers that stay where they are: a method of whoever keeps this. It is
        held weakly, so that the buffers go with the last who holds them: a circle would keep them
        until the garbage collector comes, which knows nothing of their size.
    state:
        Those that decide what the next step does: put back after the warm-up, whose steps are none.
    """

    def __init__(self, step: Callable[[], None], state: Sequence[Tensor]) -> None:
        self._method, self._state = weakref.WeakMethod(step), tuple(state)
        self._graph: Any = None

    def __call__(self) -> None:
        """One step."""
        if not self._state[0].is_cuda:
            self._step()
            return
        if self._graph is None:
            self._graph = self._captured()
        self._graph.replay()

    def _step(self) -> None:
        step = self._method()
        assert step, "whoever is asked for a step is there"
        step()

    def _captured(self) -> Any:
        kept = [buffer.clone() for buffer in self._state]
        side, here = torch.cuda.Stream(), torch.cuda.current_stream()
        side.wait_stream(here)
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self._step()
        here.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # Each graph has a pool of its own: one that several share dies with its last graph. What
        # other threads allocate meanwhile must not break the capture.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._step()
        for buffer, before in zip(self._state, kept, strict=True):
            buffer.copy_(before)
        return graph


BUSY = threading.RLock()
"""Held by whoever uses buffers that are kept: another thread would write into them."""


def kept(model: PreTrainedModel, key: Hashable, make: Callable[[], T]) -> T:
    """What a model keeps under a key, or what ``make`` makes. It goes with the model.

    A model whose embedding is listened to (self-tests do) has entries of its own: a graph would
    keep what the listener did. All are dropped together when there are too many.
    """
    mine = _kept_by(model)
    key = (bool(model.get_input_embeddings()._forward_hooks), key)
    if key not in mine:
        if len(mine) >= MOST_KEPT:
            mine.clear()
        mine[key] = make()
    found: T = mine[key]
    return found


def keep_nothing(model: PreTrainedModel) -> None:
    """Drop all that a model keeps: memory is short."""
    _kept_by(model).clear()


def _kept_by(model: PreTrainedModel) -> dict[Hashable, Any]:
    # Past torch's own attributes: these are no parts of the module.
    found: dict[Hashable, Any] = vars(model).setdefault("_fedgrpo_kept", {})
    return found
