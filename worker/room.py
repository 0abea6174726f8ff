"""What loaded indexes take of the memory that they may take, and which of them make way."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class _Figure:
    """What an index takes besides its model, in bytes; `seconds` that loading it took, 0 where it wasn't yet."""

    model: str
    own: int
    measured: bool = False
    seconds: float = 0.0


@dataclass
class Room:
    """The account of one worker. A model that several loaded indexes share counts once.

    Attributes:
        budget: how many bytes loaded indexes may take with their models; None: as many as there are.
        loads, evictions, seconds: how often one was loaded, or let go to make room, since the start; and how long all
            that loading took.
    """

    budget: int | None = None
    loads: int = 0
    evictions: int = 0
    seconds: float = 0.0
    _figures: dict[str, _Figure] = field(default_factory=dict)
    _models: dict[str, int] = field(default_factory=dict)
    # The loaded ones, the one that was used last at the end.
    _loaded: dict[str, None] = field(default_factory=dict)

    @property
    def loaded(self) -> list[str]:
        """The ids of what is loaded, the one least lately used first."""
        return list(self._loaded)

    @property
    def taken(self) -> int:
        """Bytes of all that is loaded."""
        return self._total(self._loaded)

    def expect(self, index_id: str, model: str, own: int, of_model: int) -> None:
        """Note about what an index and its model will take, in bytes. What was measured stays."""
        known = self._figures.get(index_id)
        if known is None or not known.measured:
            self._figures[index_id] = _Figure(model, own)
        self._models.setdefault(model, of_model)

    def measured(self, index_id: str, own: int, of_model: int | None, seconds: float) -> None:
        """An expected index is loaded: what it was measured to take. `of_model` is None where its model was there.

        Nothing, or less, is no measurement: something else became smaller meanwhile. What was expected stays then.
        """
        expected = self._figures[index_id]
        model = expected.model
        self._figures[index_id] = _Figure(model, own if own > 0 else expected.own, own > 0, seconds)
        if of_model is not None and of_model > 0:
            self._models[model] = of_model
        self.use(index_id)
        self.loads += 1
        self.seconds += seconds

    def use(self, index_id: str) -> None:
        """A loaded index answers a question."""
        self._loaded.pop(index_id, None)
        self._loaded[index_id] = None

    def unloaded(self, index_id: str) -> None:
        """It isn't in memory any more; its figures stay for the next time."""
        self._loaded.pop(index_id, None)

    def forget(self, index_id: str) -> None:
        """It won't come back."""
        self.unloaded(index_id)
        self._figures.pop(index_id, None)
        models = {figure.model for figure in self._figures.values()}
        self._models = {name: size for name, size in self._models.items() if name in models}

    def fits(self, index_id: str) -> bool:
        """Whether an expected index has room beside what is loaded."""
        return self._total({*self._loaded, index_id}) <= self._most

    def in_the_way(self, index_id: str) -> list[str]:
        """Which loaded ones have to make way for this one, the least lately used first; all where it's too large."""
        staying = [one for one in self._loaded if one != index_id]
        leaving = []
        while staying and self._total({*staying, index_id}) > self._most:
            leaving.append(staying.pop(0))
        return leaving

    def too_large(self, index_id: str) -> bool:
        """Whether an index alone, with its model, takes more than there may be."""
        return self._total({index_id}) > self._most

    def bytes_of(self, index_id: str) -> int:
        """What an index takes with its model."""
        return self._total({index_id})

    def seconds_of(self, index_id: str) -> float:
        """How long loading it took the last time; 0 where it hasn't been loaded."""
        figure = self._figures.get(index_id)
        return 0.0 if figure is None else figure.seconds

    @property
    def _most(self) -> float:
        return math.inf if self.budget is None else self.budget

    def _total(self, index_ids: Iterable[str]) -> int:
        figures = [self._figures[index_id] for index_id in index_ids]
        models = {figure.model for figure in figures}
        return sum(figure.own for figure in figures) + sum(self._models[name] for name in models)
