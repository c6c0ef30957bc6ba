"""Loading a model without the libraries' own talk."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Show progress bars on a terminal only, and no notes about what libraries will change: they
    are for us, not for who trains.
    """
    hide = logging.is_progress_bar_enabled() and not sys.stderr.isatty()
    if hide:
        logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        if hide:
            logging.enable_progress_bar()


@contextmanager
def only_errors() -> Iterator[None]:
    """Keep transformers' own reports back, where what they tell is looked at anyway."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
