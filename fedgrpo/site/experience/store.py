"""A store of experiences: append-only, chained by hashes, sealed by the site's key.

Adversary: whoever gets the folder without its key learns how many entries there are, how long each
is and when they were written. Whoever may write to it cannot change, move or slip in an entry that
was promised: :meth:`Store.verify` recomputes the chain. Contents can be deleted; their links stay.

Files: ``chain.jsonl`` (only ever appended to), ``contents.jsonl`` (rewritten when contents go),
``promises.jsonl``, and ``store.key`` (32 bytes, mode 0600), which may lie on another disk and be
linked here.
"""

from __future__ import annotations

import base64
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fedgrpo.ground.crypto import KEY_BYTES, kept_key, new_key, seal, unseal
from fedgrpo.ground.errors import RunError
from fedgrpo.ground.files import append_line, lines, replace_file, whole_bytes
from fedgrpo.ground.records import Experience, from_json, to_json
from fedgrpo.ground.run_files import LOCK, alone
from fedgrpo.site.experience.entries import (
    START,
    Link,
    Promise,
    content_hash,
    link_hash,
    plain_content,
)

CHAIN, CONTENTS, PROMISES, KEY = "chain.jsonl", "contents.jsonl", "promises.jsonl", "store.key"


@dataclass(frozen=True)
class Standing:
    """What a look at the whole store found sound."""

    entries: int
    deleted: int
    """Entries whose contents are gone."""
    promises: int


@dataclass(frozen=True)
class Store:
    """A folder of experiences.

    Attributes
    ----------
    folder:
        Made with its key by the first entry.
    """

    folder: Path

    @cached_property
    def _key(self) -> bytes:
        return kept_key(self.folder / KEY)

    def append(self, experiences: Sequence[Experience]) -> None:
        """Add entries; each is on disk, content first, before the next one.

        Raises
        ------
        RunError
            If the store is in use, damaged, or its key may be read by others.
        """
        with self._alone():
            chain = self.chain()
            self._drop(lambda number: number > len(chain))  # What a crash left without a link.
            last = chain[-1] if chain else Link(0, "", START)
            for experience in experiences:
                content = plain_content(new_key(), experience)
                number, hashed = last.number + 1, content_hash(content)
                sealed = seal(self._key, content, _context(number, hashed))
                text = base64.b64encode(sealed).decode()
                self._add(CONTENTS, json.dumps({"number": number, "sealed": text}))
                last = Link(number, hashed, link_hash(last.link, number, hashed))
                self._add(CHAIN, to_json(last))

    def chain(self) -> list[Link]:
        """Every link, oldest first; raises RunError if a line cannot be read."""
        return [from_json(Link, line) for line in lines(self.folder / CHAIN)]

    def read(self) -> Iterator[tuple[int, Experience]]:
        """Yield the entries whose contents are there, by number.

        Raises
        ------
        RunError
            If one was made with another key, or is not what its link says.
        """
        hashes = {link.number: link.content for link in self.chain()}
        for number, sealed in sorted(self._contents().items()):
            if number not in hashes:
                continue
            content = unseal(self._key, sealed, _context(number, hashes[number]))
            if content is None or content_hash(content) != hashes[number]:
                raise RunError(
                    f"entry {number} of {self.folder} is not what its link says, or of another key",
                    cure=f"put {CONTENTS} and {KEY} back as they were",
                )
            yield number, from_json(Experience, content[KEY_BYTES:].decode())

    def verify(self, commitment: str = "") -> Standing:
        """Recompute every link, open every content and promise.

        Parameters
        ----------
        commitment:
            What somebody was shown; one of the promises must be behind it.

        Raises
        ------
        RunError
            With the first thing that does not fit.
        """
        chain, previous = self.chain(), START
        for number, link in enumerate(chain, start=1):
            if link.number != number or link.link != link_hash(previous, number, link.content):
                raise RunError(
                    f"link {number} of {self.folder} does not follow from those before it",
                    cure=f"put {CHAIN} back as it was",
                )
            previous = link.link
        promises = self.promises()
        for promise in promises:
            there = promise.entries <= len(chain)
            if not there or (START, *(x.link for x in chain))[promise.entries] != promise.link:
                raise RunError(
                    f"{self.folder} is not the store that {promise.commitment} was made of",
                    cure=f"put {CHAIN} back as it was",
                )
        if commitment and commitment not in {promise.commitment for promise in promises}:
            raise RunError(
                f"no promise of {self.folder} is behind {commitment}",
                cure="compare the commitment, and the folder",
            )
        found = sum(1 for _ in self.read())
        return Standing(len(chain), len(chain) - found, len(promises))

    def promise(self, now: float | None = None) -> str:
        """Commit to the chain as it stands, and return the commitment."""
        with self._alone():
            chain = self.chain()
            link = chain[-1].link if chain else START
            made = Promise(len(chain), link, new_key().hex(), time.time() if now is None else now)
            self._add(PROMISES, to_json(made))
        return made.commitment

    def promises(self) -> list[Promise]:
        """Every promise, oldest first."""
        return [from_json(Promise, line) for line in lines(self.folder / PROMISES)]

    def forget(
        self, *, prompt: str = "", before: float | None = None, most: int | None = None
    ) -> int:
        """Delete contents, with their salts; the links stay. Copies in backups are not reached.

        What goes is decided prompt by prompt: a limit over all would let one prompt's entries
        decide about another's.

        Parameters
        ----------
        prompt:
            Of which everything goes, by its SHA-256 (hex).
        before:
            Unix time, in seconds: what is older goes.
        most:
            Newest entries of each prompt that stay.

        Returns
        -------
        int
            How many went.
        """
        with self._alone():
            seen: Counter[str] = Counter()
            going = set()
            for number, each in reversed(list(self.read())):
                seen[each.prompt] += 1
                old = before is not None and each.at < before
                many = most is not None and seen[each.prompt] > most
                if old or many or each.prompt == prompt:
                    going.add(number)
            self._drop(lambda number: number in going)
        return len(going)

    def _contents(self) -> dict[int, bytes]:
        found = {}
        for line in lines(self.folder / CONTENTS):
            try:
                tree = json.loads(line)
                found[int(tree["number"])] = base64.b64decode(tree["sealed"], validate=True)
            except (ValueError, TypeError, KeyError):
                raise RunError(
                    f"{self.folder / CONTENTS} has a line that is no entry",
                    cure="put it back as it was",
                ) from None
        return found

    def _drop(self, goes: Callable[[int], bool]) -> None:
        found = lines(self.folder / CONTENTS)
        kept = [line for line in found if not goes(int(json.loads(line)["number"]))]
        if kept != found:
            content = "".join(f"{line}\n" for line in kept).encode()
            replace_file(self.folder / CONTENTS, content, mode=0o600)

    def _add(self, name: str, line: str) -> None:
        path = self.folder / name
        if not path.exists():
            replace_file(path, b"", mode=0o600)
        append_line(path, f"{line}\n".encode(), after=whole_bytes(path))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with alone(self.folder, LOCK, cure="wait until it has ended"):
            yield


def _context(number: int, content: str) -> bytes:
    return f"fedgrpo experience sealed\n{number} {content}".encode()
