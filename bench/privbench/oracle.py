"""The anonymizer as an attacker may use it."""

from __future__ import annotations

import numpy as np
import torch

from privbench.errors import PluginError
from privbench.plan import ATTACKER_PARTS, Cell
from privbench.release import Released, anonymize_batch, fit, fitted, released_set, seeds_for
from privbench.session import EVALUATION, Session, hashes
from privbench.types import ImageSet


class CountedOracle:
    """The anonymizer as the attacker may use it: counted, and closed to evaluation images."""

    def __init__(self, session: Session, cell: Cell, released: Released) -> None:
        self._session, self._cell = session, cell
        self.queries = 0
        self._open = True
        self._forbidden = session.evaluation_hashes()
        self._taken = {key for part in EVALUATION for key in session.part(part).keys}
        self._known: dict[tuple[int, str, bytes], torch.Tensor] = {}
        for part in ATTACKER_PARTS:
            own = session.part(part)
            known = hashes(own)
            for draw in range(cell.draws):
                answers = released_set(session, released, part, draw).pixels
                names = zip([draw] * len(own), own.keys, known, strict=True)
                self._known |= dict(zip(names, answers, strict=True))

    def __call__(self, images: ImageSet, draw: int = 0) -> ImageSet:
        """See `privbench.types.Oracle`."""
        if not self._open:
            raise PluginError(
                f"The attack {self._cell.attack.id} asked the oracle after training; queries are "
                "over once clear evaluation images are in sight."
            )
        known = hashes(images)
        if leaked := sum(h in self._forbidden for h in known):
            raise PluginError(
                f"The attack {self._cell.attack.id} asked the oracle for {leaked} evaluation "
                "image(s); an attacker has no access to those."
            )
        if taken := self._taken.intersection(images.keys):
            raise PluginError(
                f"The attack {self._cell.attack.id} asked the oracle under {len(taken)} sample "
                "id(s) of evaluation, which would draw the very noise of those releases; give "
                "images of your own ids of your own."
            )
        self.queries += len(images)
        asked = list(zip([draw] * len(images), images.keys, known, strict=True))
        if all(a in self._known for a in asked):
            pixels = torch.stack([self._known[a] for a in asked])
        else:
            pixels = self._live(images, draw)
        return ImageSet(pixels, images.subject, images.keys)

    def close(self) -> None:
        """Refuse every further query: scoring sees evaluation images."""
        self._open = False

    def _live(self, images: ImageSet, draw: int) -> torch.Tensor:
        session, cell = self._session, self._cell
        if cell.anonymizer.registered.spec.tags.fit_on == "release":
            # What is asked for together is one release: the attacker's own, fitted on it alone.
            plugin = fit(cell.anonymizer, session.build(cell.anonymizer), images)
        else:
            plugin = fitted(session, cell, ATTACKER_PARTS[0])
        seeds = seeds_for(session, cell, images.keys, draw)
        size = cell.anonymizer.batch_size
        batches = []
        with session.reporter.task(f"{cell.anonymizer.id}: oracle", len(images)) as task:
            for start in range(0, len(images), size):
                rows = np.arange(start, min(start + size, len(images)))
                chunk = images.take(rows)
                pixels, _, _ = anonymize_batch(
                    session, cell, plugin, chunk, [seeds[i] for i in rows]
                )
                batches.append(pixels)
                task.advance(len(chunk))
        return torch.cat(batches)
