"""Forecasts that learn from every finished request. Start reading at `correct` and `observe`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from threading import Lock
from typing import Any

from mope.adapt.conformal import Tracker, guess, offsets_of
from mope.adapt.drift import Detector, change_point
from mope.adapt.scores import NOTHING, Ends, blend, log_ends, log_length, moved, scores
from mope.adapt.window import Latest, Sorted, Window
from mope.errors import BadInput, ConfigError
from mope.types import LengthForecast

FORMAT = 1
FEWEST_KEPT = 10  # scores that survive an alarm, at least


@dataclass(frozen=True)
class OnlineConfig:
    """How much is remembered, of whom, and how sure an alarm must be.

    window         scores remembered of a served model
    client_window  scores remembered of a client at a model, where `per_client` is set
    prior          how many scores weigh as much as what is known beforehand
    share          of the window that one client may hold, once the others hold `need` scores together
    false_alarms   n times this bounds the probability of an alarm in n finished requests while nothing changes
    models         served models remembered; the one unheard of for longest goes first
    clients        pairs of model and client remembered, likewise
    """

    window: int = 200
    client_window: int = 40
    prior: float = 4.0
    share: float = 0.05
    need: int = 150
    false_alarms: float = 1e-5
    per_client: bool = False
    models: int = 64
    clients: int = 256

    def __post_init__(self) -> None:
        wrong = [n for n in ("window", "client_window", "need", "models", "clients") if getattr(self, n) < 1]
        wrong += [n for n in ("share", "false_alarms") if not 0 < getattr(self, n) < 1]
        wrong += [] if 0 <= self.prior < float("inf") else ["prior"]
        if wrong:
            raise ConfigError(
                f"{wrong[0]} {getattr(self, wrong[0])}",
                "sizes of at least 1, rates between 0 and 1, a prior of 0 or more",
            )


@dataclass(frozen=True)
class Health:
    """How a served model's forecasts fare: scores at hand, the shift of the median in log1p, alarms so far.

    `since` counts the finished requests after the last alarm, or all of them.
    """

    seen: int
    shift: float
    alarms: int
    since: int


class Served:
    """What is known of one served model."""

    def __init__(self, config: OnlineConfig) -> None:
        self.tracker = Tracker(Window(config.window, config.share, config.need))
        self.detector = Detector(config.false_alarms)
        self.alarms = self.since = 0

    def observe(self, values: Ends, client: str, capped: bool) -> tuple[bool, bool]:
        """Whether the client was heard, and whether it raised an alarm."""
        self.since += 1
        heard = self.tracker.observe(values, client, capped)
        alarm = heard and self.detector.observe(values.mid)
        if alarm:
            self.alarms, self.since = self.alarms + 1, 0
            self._cut()
        return heard, alarm

    def _cut(self) -> None:
        """Keep what came after the change."""
        window = self.tracker.window
        start = change_point([entry.scores.mid for entry in window.entries.values()])
        start = max(0, min(start, len(window) - FEWEST_KEPT))
        window.keep(lambda place, _: place >= start)
        self.tracker.reset()

    def to_json(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {
            "tracker": self.tracker.to_json(), "detector": self.detector.to_json(),
            "alarms": self.alarms, "since": self.since,
        }  # fmt: skip

    def load(self, found: Mapping[str, Any]) -> None:
        """Go on from `to_json`."""
        self.tracker.load(found["tracker"])
        self.detector.load(found["detector"])
        self.alarms, self.since = int(found["alarms"]), int(found["since"])


class OnlineCalibrator:
    """Moves forecasts to where the latest answers of the same model (and client) say they belong.

    What one answer can do is bounded: a score is cut at a factor of 64, and a client above its share replaces only
    what it said itself (`Window`). Of several clients at a model of whom one is hostile, the coverage that the others
    see changes by no more than -0.2 e / (1 - e) to +0.8 e / (1 - e) for a share e of the window. Without `client`
    there is no such bound.

    Memory is bounded by the configuration, whatever the number of models and clients that pass by. May be called from
    several threads: each call is one step under a lock.
    """

    def __init__(self, config: OnlineConfig | None = None) -> None:
        self.config = config or OnlineConfig()
        self._lock = Lock()
        self._all = Window(
            self.config.window, self.config.share, self.config.need
        )  # its clients are the models
        self._models: OrderedDict[str, Served] = OrderedDict()
        self._clients: OrderedDict[tuple[str, str], Latest] = OrderedDict()

    def correct(
        self, forecast: LengthForecast, model: str | None = None, client: str | None = None
    ) -> LengthForecast:
        """The forecast as the answers so far say it should be; the same where there are none.

        Raises `BadInput` for a forecast that is no number, infinite, negative or out of order.
        """
        ends = log_ends(forecast)
        with self._lock:
            offsets = self._offsets(model or "", client or "")
        return forecast if offsets is NOTHING else moved(forecast, ends, offsets)

    def _offsets(self, model: str, client: str) -> Ends:
        found = self._blend(NOTHING, self._all, offsets_of(self._all))
        if (served := self._models.get(model)) is not None:
            found = self._blend(found, served.tracker.window, served.tracker.offsets)
        if client and (own := self._clients.get((model, client))) is not None:
            found = self._blend(found, own, offsets_of(own))
        return found

    def _blend(self, parent: Ends, window: Sorted, own: Ends) -> Ends:
        seen = len(window)
        return blend(parent, own, seen / (seen + self.config.prior)) if seen else parent

    def observe(
        self,
        forecast: LengthForecast,
        length: float,
        model: str | None = None,
        client: str | None = None,
        capped: bool = False,
    ) -> bool:
        """Learn from a finished request; True where it raises the alarm that this model's answers have changed.

        `forecast` is the one before `correct`, `length` the answer's tokens, `capped` whether it was cut off there.
        Raises `BadInput`, and learns nothing, for what is no forecast or no length.
        """
        values = scores(log_ends(forecast), log_length(length))
        model, client = model or "", client or ""
        with self._lock:
            heard, alarm = self._served(model).observe(values, client, capped)
            if alarm:
                self._forget(model)
            if heard:
                self._all.add(guess(self._all, values) if capped else values, model)
            if client and self.config.per_client:
                own = self._client(model, client)
                own.add(guess(own, values) if capped else values)
        return alarm

    def _forget(self, model: str) -> None:
        """A model that has changed: what it said before tells nobody what to expect, it and its clients included."""
        self._all.keep(lambda _, entry: entry.client != model)
        for key in [key for key in self._clients if key[0] == model]:
            del self._clients[key]

    def _served(self, model: str) -> Served:
        served = self._models.get(model)
        if served is None:
            served = self._models[model] = Served(self.config)
            if len(self._models) > self.config.models:
                self._models.popitem(last=False)
        else:
            self._models.move_to_end(model)
        return served

    def _client(self, model: str, client: str) -> Latest:
        key = model, client
        window = self._clients.get(key)
        if window is None:
            window = self._clients[key] = Latest(self.config.client_window)
            if len(self._clients) > self.config.clients:
                self._clients.popitem(last=False)
        else:
            self._clients.move_to_end(key)
        return window

    def health(self, model: str | None = None) -> Health:
        """How the forecasts for a served model fare."""
        with self._lock:
            served = self._models.get(model or "")
            if served is None:
                return Health(0, 0.0, 0, 0)
            tracker = served.tracker
            return Health(len(tracker.window), tracker.offsets.mid, served.alarms, served.since)

    def snapshot(self) -> dict[str, Any]:
        """Everything known, as JSON takes it; `restore` goes on exactly from there."""
        with self._lock:
            return {
                "format": FORMAT,
                "config": asdict(self.config),
                "all": self._all.to_json(),
                "models": [[name, served.to_json()] for name, served in self._models.items()],
                "clients": [[*key, window.to_json()] for key, window in self._clients.items()],
            }

    @classmethod
    def restore(cls, snapshot: Mapping[str, Any]) -> OnlineCalibrator:
        """What `snapshot` gave. Raises `BadInput` where it is not whole or of another format."""
        if not isinstance(snapshot, Mapping) or snapshot.get("format") != FORMAT:
            raise BadInput("a snapshot of another format", f"format {FORMAT}, made by snapshot()")
        try:
            return cls(OnlineConfig(**snapshot["config"]))._load(snapshot)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
            raise BadInput(
                f"a snapshot with {type(error).__name__} {error}", "one made by snapshot()"
            ) from error

    def _load(self, snapshot: Mapping[str, Any]) -> OnlineCalibrator:
        self._all.load(snapshot["all"])
        for name, found in snapshot["models"]:
            self._served(str(name)).load(found)
        for model, client, found in snapshot["clients"]:
            self._client(str(model), str(client)).load(found)
        return self
