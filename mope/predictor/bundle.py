"""MoPE: everything from a request to a forecast of its length. Start reading at `predict`."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from mope.data.values import shorten
from mope.errors import BundleError, PromptError
from mope.files import whole, write_text
from mope.hub import local_folder, upload
from mope.predictor import layout
from mope.predictor.backends import Backend, Packed, ask, open_backend
from mope.predictor.calibration import Calibration, predicted_buckets
from mope.predictor.config import BundleConfig
from mope.predictor.features import ALL, NAMES, with_sampling
from mope.predictor.floors import Floors
from mope.predictor.inputs import Batch, Inputs, build_inputs
from mope.predictor.mixture import mix, routed
from mope.predictor.overlay import Overlay, basis
from mope.predictor.overlays import Overlays, load_overlays
from mope.predictor.packed import packed_answer, packed_outputs
from mope.predictor.router import LexicalRouter, softmax
from mope.predictor.text import check_prompt
from mope.types import BUCKETS, LengthForecast, Message, Request

BATCH = 32
FloatArray = NDArray[np.float64]
Chat = Sequence[Message | Mapping[str, str]]


@dataclass(frozen=True, eq=False)
class Column:
    """Forecasts of n requests by one way of forecasting: tokens [n]; the rest where that way has it.

    quantiles [n, K] in tokens at the bundle's levels; low and high [n] the calibrated 80 % interval;
    probabilities [n, 3] of the buckets.
    """

    tokens: FloatArray
    quantiles: FloatArray | None = None
    low: FloatArray | None = None
    high: FloatArray | None = None
    probabilities: FloatArray | None = None

    def put(self, rows: NDArray[np.int64], other: Column) -> Column:
        """This column with the rows' forecasts of `other`, which has what this one has."""
        found = {}
        for field in fields(self):
            mine = getattr(self, field.name)
            if mine is not None:
                found[field.name] = mine.copy()
                found[field.name][rows] = getattr(other, field.name)
        return Column(**found)


class MoPE:
    """A bundle ready to predict. Make one with `MoPE.from_pretrained`."""

    def __init__(self, folder: Path, config: BundleConfig, backend: Backend, tokenizer: Tokenizer) -> None:
        self.folder, self.config, self.backend, self.tokenizer = folder, config, backend, tokenizer
        self.calibration = Calibration({})
        self.overlays = Overlays()

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path | None = None,
        *,
        backend: str = "auto",
        threads: int = 1,
        revision: str | None = None,
        overlay: str | Path | None = None,
    ) -> MoPE:
        """Load a bundle from a folder or Hub id; without one, the bundle that ships with mope.

        What `mope calibrate` wrote beside the bundle answers for requests of its served model; `overlay` takes one
        such file instead, for requests without a model's name too, or "none".

        `backend` is auto, onnx-int8, onnx, torch or triton (on a GPU; without one, torch answers and a warning says
        so); `threads` is for one forecast on the CPU. Raises `BundleError` for a folder that is not whole, of another
        format, or changed since it was written.
        """
        folder = (
            Path(str(files("mope") / "assets" / "default"))
            if source is None
            else local_folder(source, revision)
        )
        config = BundleConfig.from_json(layout.read_text(folder, layout.CONFIG))
        if config.features not in (NAMES, ALL):
            raise BundleError("a bundle with other features", "those of this mope version", "train it again")
        layout.check_files(folder, config.files)
        bundle = cls(folder, config, open_backend(folder, config, backend, threads), _tokenizer(folder))
        bundle.calibration = Calibration.from_json(layout.read_text(folder, layout.CALIBRATION))
        bundle.overlays = load_overlays(folder, config, overlay)
        return bundle

    def save_pretrained(self, folder: str | Path) -> None:
        """Copy the bundle's files to `folder`, each whole or not at all; config.json last."""
        target = Path(folder)
        for name in self.files:
            if name != layout.CONFIG:
                with whole(target / name) as partial:
                    shutil.copyfile(layout.inside(self.folder, name), partial)
        write_text(target / layout.CONFIG, self.config.to_json())

    def push_to_hub(
        self, repo: str, *, revision: str | None = None, private: bool = False, message: str = ""
    ) -> str:
        """Put the bundle's files into the Hub's repository `repo`, made where new; returns the commit's address.

        The token is HF_TOKEN's, or that of `hf auth login`. Raises `BundleError` where the Hub refuses, `HubError`
        where it fails.
        """
        message = message or f"A bundle of mope {self.config.mope_version}"
        return upload(
            self.folder, repo, list(self.files), revision=revision, private=private, message=message
        )

    @property
    def files(self) -> dict[str, int]:
        """The bundle's files and their bytes; what else lies in the folder is no part of it."""
        texts = (layout.CALIBRATION, layout.FACTS, layout.CARD, layout.CONFIG)
        names = dict.fromkeys((*self.config.files, *texts))
        there = [name for name in names if (self.folder / name).is_file()]
        return {name: layout.inside(self.folder, name).stat().st_size for name in there}

    @cached_property
    def lexical(self) -> LexicalRouter:
        """The cheap router."""
        return LexicalRouter.from_arrays(layout.read_arrays(self.folder, layout.ROUTER))

    @cached_property
    def floors(self) -> Floors | None:
        """The untrained floors, where the bundle carries them."""
        if not (self.folder / layout.FLOORS).is_file():
            return None
        return Floors.from_arrays(layout.read_arrays(self.folder, layout.FLOORS))

    @overload
    def predict(self, requests: str | Request) -> LengthForecast: ...  # type: ignore[overload-overlap]
    @overload
    def predict(self, requests: Sequence[str | Request]) -> list[LengthForecast]: ...
    def predict(
        self, requests: str | Request | Sequence[str | Request]
    ) -> LengthForecast | list[LengthForecast]:
        """Forecast the output length of one prompt or request, or of a list of them, in order.

        Raises `PromptError` naming the place of a prompt that is no text, empty, too long or binary.
        """
        if isinstance(requests, (str, Request)):
            return self.predict([requests])[0]
        rows = [_request(item, place) for place, item in enumerate(requests)]
        if not rows:
            return []
        inputs, parts = self.inputs(rows), self.overlays.places(rows)
        if len(parts) == 1:
            return self._forecasts(self._answered(parts[0][0], rows, inputs))
        found: list[LengthForecast | None] = [None] * len(rows)
        for overlay, places in parts:
            column = self._answered(overlay, [rows[i] for i in places], inputs.take(places))
            for place, forecast in zip(places, self._forecasts(column), strict=True):
                found[place] = forecast
        return [forecast for forecast in found if forecast is not None]

    def _answered(self, overlay: Overlay | None, requests: Sequence[Request], inputs: Inputs) -> Column:
        """Forecasts of requests of one served model by its overlay, or as the bundle is."""
        routing = self.config.routing
        if overlay is None:
            return self._column(routing, *self._answer(requests, inputs))
        return self.adapted(overlay, routing, inputs.features, *self.expert_answers(requests, inputs))

    def expert_answers(self, requests: Sequence[Request], inputs: Inputs) -> tuple[FloatArray, FloatArray]:
        """Log quantiles [n, E, K] of all experts and the router's chances [n, 3]."""
        networks = [*BUCKETS, *([] if self.config.router == "lexical" else [layout.ENCODER_ROUTER])]
        outputs = self.run(networks, inputs)
        chances = self.route(requests, inputs, outputs)
        return np.stack([outputs[bucket] for bucket in BUCKETS], axis=1), chances

    def adapted(
        self,
        overlay: Overlay,
        routing: str,
        features: NDArray[np.float32],
        experts: FloatArray,
        chances: FloatArray,
    ) -> Column:
        """Forecasts from the experts' quantiles [n, E, K] and the router's chances [n, 3], as `overlay` has them."""
        levels, shifted = self.config.quantiles, overlay.chances(chances)
        read = basis(features, experts, chances, levels)
        logs = overlay.logs(routed(routing, experts, shifted, levels), read, levels.index(0.5))
        return self._column(routing, logs, shifted, overlay.ends)

    def inputs(self, requests: Sequence[Request]) -> Inputs:
        """Requests as arrays. Raises `BundleError` for a tokenizer whose ids the encoder does not have."""
        size = self.config.encoder.vocab_size
        try:
            found = build_inputs(requests, self.tokenizer, self.config.text, self.config.models)
            if self.config.features == ALL:
                found = replace(found, features=with_sampling(found.features, requests))
            found = self.overlays.read_as(found, requests, self.config.models)
            fits = found.ids.max(initial=0) < size
        except OverflowError:  # an id of more than 31 bits
            fits = False
        if not fits:
            raise BundleError(f"a tokenizer with ids beyond {size}", "the encoder's vocabulary")
        return found

    def run(self, networks: Sequence[str], inputs: Inputs) -> dict[str, FloatArray]:
        """Outputs of several networks by name, each [n, outputs]; what they share is computed once."""
        if isinstance(self.backend, Packed):
            return packed_outputs(self.backend, self.config, networks, inputs)
        found: dict[str, FloatArray] = {}
        for rows in _batches(inputs):
            batch = inputs.batch(rows)
            shared = self.backend.shared(batch)
            for network in networks:
                got = ask(self.backend, self.config, network, batch, shared)
                found.setdefault(network, np.zeros((len(inputs), got.shape[1])))[rows] = got
        return found

    def route(
        self, requests: Sequence[Request], inputs: Inputs, outputs: Mapping[str, FloatArray], router: str = ""
    ) -> FloatArray:
        """Probability of each bucket, [n, 3]; "both" is the mean of the two routers.

        `outputs` of `run` hold the encoder router's scores, where it is asked; `router` replaces the bundle's choice.
        """
        router = router or self.config.router
        found = []
        if router != "encoder":
            found.append(self.lexical.probabilities(requests, inputs.features).astype(np.float64))
        if router != "lexical":
            found.append(softmax(outputs[layout.ENCODER_ROUTER]))
        mean: FloatArray = np.mean(found, axis=0)
        return mean

    def _answer(self, requests: Sequence[Request], inputs: Inputs) -> tuple[FloatArray, FloatArray]:
        """Log quantiles [n, K] and router probabilities [n, 3] by the bundle's routing."""
        hard, levels = self.config.routing == "hard", self.config.quantiles
        logs, chances = np.zeros((len(inputs), len(levels))), np.zeros((len(inputs), len(BUCKETS)))
        if self.config.router != "encoder":
            chances[:] = self.lexical.probabilities(requests, inputs.features)
        if isinstance(self.backend, Packed):
            return packed_answer(self.backend, self.config, inputs, chances)
        for rows in _batches(inputs):
            batch = inputs.batch(rows)
            shared = self.backend.shared(batch)
            if self.config.router != "lexical":
                scores = ask(self.backend, self.config, layout.ENCODER_ROUTER, batch, shared)
                own = softmax(scores.astype(np.float64))
                chances[rows] = own if self.config.router == "encoder" else (chances[rows] + own) / 2
            if hard:
                logs[rows] = self._chosen(batch, shared, chances[rows].argmax(1))
            else:
                experts = [ask(self.backend, self.config, name, batch, shared) for name in BUCKETS]
                logs[rows] = mix(np.stack(experts, axis=1).astype(np.float64), chances[rows], levels)
        return logs, chances

    def _chosen(self, batch: Batch, shared: Any, places: NDArray[np.int64]) -> FloatArray:
        """Each row's answer by the expert number `places[row]` alone."""
        logs = np.zeros((len(places), len(self.config.quantiles)))
        for place in np.unique(places):
            rows = np.flatnonzero(places == place)
            part, texts = batch.subset(rows)
            logs[rows] = ask(self.backend, self.config, BUCKETS[place], part, shared[texts])
        return logs

    def columns(
        self, requests: Sequence[Request], true_lengths: NDArray[np.float64] | None = None
    ) -> dict[str, Column]:
        """Every way this bundle can forecast, by name, for evaluation; the oracle needs `true_lengths` [n]."""
        inputs = self.inputs(requests)
        wanted = [*BUCKETS, *(n for n in (layout.PROXY, layout.ENCODER_ROUTER) if self.backend.has(n))]
        outputs = self.run(wanted, inputs)
        probabilities = self.route(requests, inputs, outputs)
        experts = np.stack([outputs[bucket] for bucket in BUCKETS], axis=1)
        rows = np.arange(len(inputs))
        levels = self.config.quantiles
        columns = {}
        for name in ("hard", "soft"):
            column = self._column(name, routed(name, experts, probabilities, levels), probabilities)
            for overlay, at in self.overlays.places(requests):
                if overlay is not None:
                    own = inputs.features[at], experts[at], probabilities[at]
                    column = column.put(at, self.adapted(overlay, name, *own))
            columns[f"MoPE (routed, {name})"] = column
        if true_lengths is not None:
            true = self.config.bounds.bucket(true_lengths)
            columns["MoPE (oracle router)"] = self._column("oracle", experts[rows, true], None)
        if layout.PROXY in outputs:
            columns["proxy"] = self._column("proxy", outputs[layout.PROXY], None)
        if self.floors is not None:
            names = {"constant": "constant", "surface": "surface GBDT", "context": "context GBDT"}
            chosen = self.floors.buckets(requests, inputs.features)
            for name, tokens in self.floors.predict(requests, inputs.features).items():
                columns[names[name]] = Column(tokens, probabilities=np.eye(len(BUCKETS))[chosen[name]])
        return columns

    def _column(
        self,
        name: str,
        logs: FloatArray,
        probabilities: FloatArray | None,
        moves: Sequence[tuple[float, float]] | None = None,
    ) -> Column:
        levels, bounds = self.config.quantiles, self.config.bounds
        medians = logs[:, levels.index(0.5)]
        if probabilities is None:
            buckets = predicted_buckets(medians, (bounds.short, bounds.medium))
        else:
            buckets = probabilities.argmax(1)
        low, high = self.calibration.interval(name, buckets, logs, levels, moves)
        quantiles = np.maximum(np.expm1(np.minimum(logs, 20.0)), 0.0)
        return Column(quantiles[:, levels.index(0.5)], quantiles, low, high, probabilities)

    def _forecasts(self, column: Column) -> list[LengthForecast]:
        assert column.quantiles is not None
        assert column.probabilities is not None
        assert column.low is not None
        assert column.high is not None
        places = column.probabilities.argmax(1)
        return [
            LengthForecast(
                tokens=float(column.tokens[i]),
                low=float(column.low[i]),
                high=float(column.high[i]),
                levels=self.config.quantiles,
                quantiles=tuple(map(float, column.quantiles[i])),
                bucket=BUCKETS[places[i]],
                probabilities=tuple(map(float, column.probabilities[i])),  # type: ignore[arg-type]
            )
            for i in range(len(column.tokens))
        ]


def with_hashes(config: BundleConfig, folder: Path) -> BundleConfig:
    """`config` that lists the hash of every weight file now in `folder`."""
    kinds = (
        *("*.safetensors", "router/*.safetensors", "experts/*.safetensors", layout.TOKENIZER),
        *("onnx/*.onnx*", "onnx/fp16/*.onnx*", "onnx/int8/*.onnx*"),
    )
    found = sorted(path for kind in kinds for path in folder.glob(kind) if not path.name.startswith("."))
    return replace(config, files={p.relative_to(folder).as_posix(): layout.sha256(p) for p in found})


def _request(item: object, place: int) -> Request:
    request = item if isinstance(item, Request) else Request(prompt=item)  # type: ignore[arg-type]
    try:
        check_prompt(request.prompt)
    except PromptError as error:
        if place:
            raise PromptError(
                f"prompt number {place + 1}: {error.came}", error.expected, error.todo
            ) from None
        raise
    return as_trained(request)


def as_trained(request: Request) -> Request:
    """Texts cut as the training data's are: features of a longer prompt would be ones nobody learned from."""
    history = request.history
    prompt, earlier = shorten(request.prompt), tuple(map(shorten, history.prompts))
    if prompt is request.prompt and earlier == history.prompts:
        return request  # two copies of every request were a seventh of the lexical router's time
    return replace(request, prompt=prompt, history=replace(history, prompts=earlier))


def _batches(inputs: Inputs) -> list[NDArray[np.int64]]:
    """Rows in batches of texts of like size; rows that read one text stay together."""
    if len(inputs) <= BATCH:
        return [np.arange(len(inputs))] if len(inputs) else []
    order = np.lexsort((inputs.text, inputs.sizes[inputs.text]))
    changes = np.flatnonzero(np.diff(inputs.text[order], prepend=-1))
    cuts = changes[BATCH::BATCH]
    return [
        rows for part in np.split(order, cuts) for rows in np.array_split(part, -(-len(part) // (64 * BATCH)))
    ]


def _tokenizer(folder: Path) -> Tokenizer:
    text = layout.read_text(folder, layout.TOKENIZER)
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # noqa: BLE001 - the library raises bare Exception
        raise BundleError(
            f"tokenizer.json cannot be read ({error})", "a tokenizer file", "fetch the bundle again"
        ) from None


__all__ = ["Column", "MoPE", "as_trained", "with_hashes"]
