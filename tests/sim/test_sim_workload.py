"""Arrivals, lengths, VTC's draws, traces in every form, scenarios; and what is refused."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from itertools import islice
from math import inf, pi, sin
from pathlib import Path

import numpy as np
import pytest

from mope.errors import BadInput, ConfigError, DataError
from mope.sim.arrivals import Piece, diurnal, on_off, ramp, steady, times
from mope.sim.scenario import load_scenario, parse_scenario, scenario_names
from mope.sim.sequence import Arrival
from mope.sim.traces import TraceConfig
from mope.sim.workload import ClientLoad, Lengths, mixed


def first(found: Iterator[float], count: int) -> list[float]:
    return list(islice(found, count))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_even_arrivals_are_evenly_spaced_from_a_random_phase() -> None:
    found = first(times(steady(4.0), rng(), 0.0), 50)
    assert 0 <= found[0] < 0.25
    assert np.allclose(np.diff(found), 0.25)


@pytest.mark.parametrize(("cv", "off"), [(1.0, 0.02), (0.5, 0.01), (3.0, 0.06)])
def test_gamma_gaps_have_the_mean_and_the_variation_asked_for(cv: float, off: float) -> None:
    gaps = np.diff(first(times(steady(5.0), rng(1), cv), 40_000))
    assert gaps.mean() == pytest.approx(0.2, rel=off)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=2 * off)


def test_on_and_off() -> None:
    found = first(times(on_off(10.0, 3.0, 7.0), rng(), 0.0), 90)
    assert all(time % 10 < 3 for time in found)
    assert found[59] < 20 < found[60]


def test_a_ramp_comes_as_its_integral_says() -> None:
    found = first(times(ramp(1.0, 3.0, 10.0), rng(), 0.0), 40)
    assert 0.9 < sum(time <= 5 for time in found) / (5 + 2.5) < 1.1
    assert sum(time <= 10 for time in found) == 20
    assert found[20] > 10  # and starts over


def test_a_day_follows_the_sine() -> None:
    pieces = diurnal(2.0, 0.5, 100.0)
    assert sum(piece.total for piece in pieces) == pytest.approx(200.0, rel=1e-3)
    assert pieces[12].first == pytest.approx(2.0 * (1 + 0.5 * sin(2 * pi * 0.25)))


def test_a_rate_of_nothing_has_no_arrivals() -> None:
    assert first(times([Piece(5.0, 0.0, 0.0)], rng(), 1.0), 3) == []


def test_lengths() -> None:
    assert Lengths.of(7).draw(rng(), 3).tolist() == [7, 7, 7]
    uniform = Lengths.of({"uniform": [3, 5]}).draw(rng(), 3000)
    assert sorted(set(uniform.tolist())) == [3, 4, 5]
    drawn = Lengths.of({"lognormal": [100, 1.0, 1, 500]}).draw(rng(), 20_000)
    assert np.median(drawn) == pytest.approx(100, rel=0.03)
    assert drawn.max() == 500


@pytest.mark.parametrize(
    "value", [0, -1, True, "9", {"uniform": [5, 3]}, {"uniform": [0, 3]}, {"normal": [1, 2]}, {}]
)
def test_lengths_that_make_no_sense_are_refused(value: object) -> None:
    with pytest.raises(ConfigError):
        Lengths.of(value)


def test_a_client_sends_the_same_whoever_else_sends() -> None:
    one, other = (
        ClientLoad(name, tuple(steady(2.0)), prompt=Lengths.of({"uniform": [1, 99]})) for name in "ab"
    )
    alone = list(mixed((one,), 3, "none", 20.0, None))
    both = list(mixed((one, other), 3, "none", 20.0, None))
    assert [arrival for arrival in both if arrival.client == "a"] == alone
    assert both == sorted(both)
    assert list(mixed((one,), 4, "none", 20.0, None)) != alone
    assert len(list(mixed((one, other), 3, "none", inf, 7))) == 7


@pytest.mark.parametrize("name", scenario_names())
def test_every_scenario_that_ships_can_be_drawn(name: str) -> None:
    found = list(load_scenario(name).arrivals(0))
    assert len(found) > 500
    assert found == sorted(found, key=lambda arrival: arrival.arrival_s)
    assert list(load_scenario(name).arrivals(0)) == found


def test_vtc_s_draws_have_its_counts_and_spaces() -> None:
    found = list(load_scenario("vtc/overload").arrivals(0))
    by_client = {
        name: [one.arrival_s for one in found if one.client == name] for name in ("client-1", "client-2")
    }
    assert [len(times_) for times_ in by_client.values()] == [540, 1080]
    # numpy's legacy generator with seed 42: 0.3745401188 and 0.9507143064 of a gap, then a gap
    assert by_client["client-1"][0] == pytest.approx((1 + 0.3745401188) / 1.5)
    assert by_client["client-2"][0] == pytest.approx((1 + 0.9507143064) / 3)
    silent = [
        one.arrival_s for one in load_scenario("vtc/on_off_less").arrivals(0) if one.client == "client-1"
    ]
    assert all(int(time // 60) % 2 == 0 for time in silent)
    shift = [one for one in load_scenario("vtc/dist_shift").arrivals(0) if one.client == "client-1"]
    thirds = np.histogram([one.arrival_s for one in shift], [0, 300.5, 601, 902])[0]
    assert thirds.tolist() == [89, 301, 150]  # the last of the first third comes at 300.75 s


def write(path: Path, text: str) -> Path:
    if path.name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return path


OWN = "arrival_s,client,prompt_tokens,output_tokens\n0.5,a,10,20\n2,b,30,40\n"
AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n"
)
BURST = (
    "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "5,ChatGPT,472,18,490,Conversation log\n45,ChatGPT,1087,230,1317,API log\n"
)
MOONCAKE = (
    '{"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47]}\n'
    '{"timestamp": 30535, "input_length": 6472, "output_length": 26, "hash_ids": [46, 2366]}\n'
)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("own.csv", OWN, [Arrival(0.5, "a", 10, 20), Arrival(2.0, "b", 30, 40)]),
        ("own.csv.gz", OWN, [Arrival(0.5, "a", 10, 20), Arrival(2.0, "b", 30, 40)]),
        ("azure.csv", AZURE, [Arrival(0.0, "all", 374, 44), Arrival(4.314579, "all", 396, 109)]),
        ("burst.csv", BURST, [Arrival(0.0, "all", 472, 18), Arrival(40.0, "all", 1087, 230)]),
        (
            "mooncake.jsonl",
            MOONCAKE,
            [
                Arrival(0.0, "all", 6955, 52, None, (46, 47)),
                Arrival(3.053, "all", 6472, 26, None, (46, 2366)),
            ],
        ),
    ],
)
def test_traces_are_known_by_their_columns(
    tmp_path: Path, name: str, text: str, expected: list[Arrival]
) -> None:
    found = list(TraceConfig(str(write(tmp_path / name, text))).arrivals(0, "none"))
    assert [one._replace(arrival_s=round(one.arrival_s, 6)) for one in found] == expected


def test_a_trace_from_parquet(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {
        "arrival_s": [0.5, 2.0],
        "client": ["a", "b"],
        "input_tokens": [10, 30],
        "output_tokens": [20, 40],
    }
    pq.write_table(pa.table(columns), tmp_path / "own.parquet")
    found = list(TraceConfig(str(tmp_path / "own.parquet")).arrivals(0, "exact"))
    assert found == [Arrival(0.5, "a", 10, 20, 20), Arrival(2.0, "b", 30, 40, 40)]


def test_servegen_s_tables_become_requests(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    windows = {"client": [3, 3], "start_s": [0, 600], "rate_rps": [0.0, 2.0], "cv": [0.0, 1.5]}
    pdfs = {
        "client": [3, 3, 3],
        "start_s": [0, 0, 0],
        "field": ["input_tokens", "input_tokens", "output_tokens"],
        "value": [5.0, 9.0, 0.0],
        "prob": [0.25, 0.75, 1.0],
    }
    pq.write_table(pa.table(windows), tmp_path / "x_windows.parquet")
    path = str(tmp_path / "x_windows.parquet")
    with pytest.raises(DataError, match="length_pdfs"):
        list(TraceConfig(path).arrivals(0, "none"))
    pq.write_table(pa.table(pdfs), tmp_path / "x_length_pdfs.parquet")
    found = list(TraceConfig(path, begin_s=600).arrivals(1, "none"))
    assert 1200 * 0.85 < len(found) < 1200 * 1.15
    assert 0 <= found[0].arrival_s <= found[-1].arrival_s < 600
    assert {one.client for one in found} == {"client-3"}
    assert np.mean([one.prompt_tokens for one in found]) == pytest.approx(8.0, abs=0.25)
    assert {one.output_tokens for one in found} == {1}


def test_clients_can_be_assigned(tmp_path: Path) -> None:
    rows = "".join(f"{i},{i % 2},5,5\n" for i in range(4000))
    path = str(write(tmp_path / "t.csv", "arrival_s,client,prompt_tokens,output_tokens\n" + rows))
    zipf = [one.client for one in TraceConfig(path, "zipf:3").arrivals(0, "none")]
    shares = [zipf.count(f"zipf-{i}") / 4000 for i in (1, 2, 3)]
    assert shares == pytest.approx([6 / 11, 3 / 11, 2 / 11], abs=0.03)
    equal = {one.client for one in TraceConfig(path, "equal:5").arrivals(0, "none")}
    assert equal == {f"equal-{i}" for i in range(1, 6)}
    fast = list(TraceConfig(path, speed=4.0, limit=9, begin_s=100).arrivals(0, "none"))
    assert (len(fast), fast[0].arrival_s, fast[8].arrival_s) == (9, 0.0, 2.0)


HEAD = "arrival_s,client,prompt_tokens,output_tokens\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no rows"),
        (HEAD, "no rows"),
        ("time,n\n1,2\n", "columns time, n"),
        (HEAD + "1,a,5,5\n0.5,a,5,5\n", "row 2: arrival"),
        (HEAD + "-1,a,5,5\n", "row 1: arrival"),
        (HEAD + "nan,a,5,5\n", "row 1: arrival"),
        (HEAD + "soon,a,5,5\n", "row 1: arrival"),
        (HEAD + "1,a,5,0\n", "row 1: output"),
        (HEAD + "1,a,0,5\n", "row 1: prompt"),
        (HEAD + "1,a,5,2.5\n", "row 1: output"),
        (HEAD + "1,a,5\n", "row 1: output"),
        (HEAD + '1,"a""b",5,5\n', "row 1: client"),
    ],
)
def test_a_trace_that_makes_no_sense_is_refused_with_its_row(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        list(TraceConfig(str(write(tmp_path / "t.csv", text))).arrivals(0, "none"))


@pytest.mark.parametrize("name", ["gone.csv", "cut.csv.gz", "bad.jsonl", "bad.parquet"])
def test_files_that_cannot_be_read_are_refused(tmp_path: Path, name: str) -> None:
    if name != "gone.csv":
        (tmp_path / name).write_bytes(
            gzip.compress(OWN.encode())[:40] if name.endswith("gz") else b"\xffPAR1 nope\n"
        )
    with pytest.raises(BadInput):
        list(TraceConfig(str(tmp_path / name)).arrivals(0, "none"))


@pytest.mark.parametrize("clients", ["equal:0", "equal", "zipf:x", "zipf:3:nan", "some:3", "zipf:3:-1"])
def test_clients_that_cannot_be_assigned(clients: str) -> None:
    with pytest.raises(ConfigError, match="clients"):
        TraceConfig("x.csv", clients)


SCENARIO = {"duration_s": 10, "clients": [{"name": "a", "rate": 1.0}]}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"speed": 1}, "key 'speed'"),
        ({"duration_s": "long"}, "duration_s"),
        ({"duration_s": -1}, "duration_s"),
        ({"clients": []}, "clients and trace"),
        ({"trace": {"file": "x"}}, "clients and trace"),
        ({"declared": "maybe"}, "declared"),
        ({"draws": "mine"}, "draws"),
        ({"requests": 0}, "requests"),
        ({"clients": [{"name": "a"}]}, "rate"),
        ({"clients": [{"name": "a", "rate": -1}]}, "rate"),
        ({"clients": [{"name": "a", "rate": 1, "ramp": [1, 2, 3]}]}, "rate"),
        ({"clients": [{"name": "a", "on_off": [1, 0, 5]}]}, "times above 0"),
        ({"clients": [{"name": "a", "rate": 1}, {"name": "a", "rate": 1}]}, "one name"),
        ({"clients": [{"name": "a", "rate": 1, "weight": 0}]}, "weight"),
        ({"clients": [{"name": "a", "rate": 1, "copies": 0}]}, "copies"),
        ({"clients": [{"name": "a", "rate": 1, "arrivals": "gamma"}]}, "arrivals"),
        ({"clients": [{"name": "a", "rate": 1, "colour": 1}]}, "key 'colour'"),
        ({"clients": [{"name": "a", "phases": [{"rate": 1}]}]}, "for_s"),
        ({"server": {"loop": "fast"}}, "loop"),
        ({"server": {"speed": 1}}, "key 'speed'"),
        ({"server": {"block": 0}}, "block"),
        ({"server": {"pool_tokens": "many"}}, "server"),
        ({"server": {"tpot_s": -1.0}}, "tpot_s"),
        ({"server": {"prefix_tokens": 512, "loop": "slora"}}, "prefix_tokens"),
    ],
)
def test_a_scenario_that_makes_no_sense_is_refused_with_the_key(
    changed: dict[str, object], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_scenario({**SCENARIO, **changed}, "x")


def test_phases_are_cut_and_repeated() -> None:
    phases = [{"on_off": [2.0, 3, 3], "for_s": 8}, {"ramp": [1.0, 3.0, 4], "for_s": 2}]
    found = parse_scenario({"duration_s": 9, "clients": [{"name": "a", "phases": phases}]}, "x")
    assert found.clients[0].pieces == (
        Piece(3, 2.0, 2.0), Piece(3, 0.0, 0.0), Piece(2, 2.0, 2.0), Piece(2, 1.0, 2.0)
    )  # fmt: skip


def test_scenarios_from_files(tmp_path: Path) -> None:
    text = 'duration_s = 5\n[server]\nloop = "continuous"\nblock = 4\n'
    one = write(tmp_path / "one.toml", text + '[[clients]]\nname = "a"\nrate = 2\ncopies = 2\n')
    assert [client.name for client in load_scenario(str(one)).clients] == ["a-1", "a-2"]
    several = text + '[scenario.x]\nserver = {block = 8}\nclients = [{name = "a", rate = 1}]\n'
    found = load_scenario(f"{write(tmp_path / 'several.toml', several)}:x")
    assert (found.server.loop, found.server.block, found.duration_s) == ("continuous", 8, 5.0)
    with pytest.raises(ConfigError, match="one of x"):
        load_scenario(str(tmp_path / "several.toml"))
    with pytest.raises(ConfigError, match="TOML"):
        load_scenario(str(write(tmp_path / "bad.toml", "= 3")))
    with pytest.raises(ConfigError, match="overload, overload-multi"):
        load_scenario("vtc/nothing")
    with pytest.raises(ConfigError, match="vtc/overload"):
        load_scenario("nothing")


def test_hashes_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    row = {"timestamp": 1, "input_length": 600, "output_length": 2, "hash_ids": [[1]]}
    with pytest.raises(DataError, match="hash_ids"):
        list(TraceConfig(str(write(tmp_path / "m.jsonl", json.dumps(row)))).arrivals(0, "none"))


def test_rows_of_lengths_are_drawn_with_poisson_arrivals(tmp_path: Path) -> None:
    rows = "".join(f"{n},{2 * n}\n" for n in range(1, 51))
    path = str(write(tmp_path / "t.csv", "input_tokens,output_tokens\n" + rows))
    trace = TraceConfig(path, "zipf:2", rate=20.0)
    found = list(trace.arrivals(0, "exact", 500.0))
    gaps = np.diff([one.arrival_s for one in found])
    assert (gaps.mean(), gaps.std()) == pytest.approx((0.05, 0.05), rel=0.05)
    assert all(one.output_tokens == 2 * one.prompt_tokens == one.declared for one in found)
    assert len({one.prompt_tokens for one in found}) == 50
    assert [one.client for one in found].count("zipf-1") / len(found) == pytest.approx(2 / 3, abs=0.02)
    assert list(trace.arrivals(0, "exact", 500.0)) == found
    assert list(trace.arrivals(1, "exact", 500.0))[:9] != found[:9]
    assert len(list(trace.arrivals(0, "none", inf, 7))) == 7
    with pytest.raises(ConfigError, match="without an end"):
        list(trace.arrivals(0, "none"))
    with pytest.raises(DataError, match="rate of arrivals"):
        list(TraceConfig(path).arrivals(0, "none"))
    for wrong in ({"rate": 0.0}, {"rate": float("nan")}, {"rate": 1.0, "begin_s": 5.0}):
        with pytest.raises(ConfigError, match="rate"):
            TraceConfig(path, **wrong)
    bad = write(tmp_path / "b.csv", "input_tokens,output_tokens\n1,1\n1,0\n")
    with pytest.raises(DataError, match="row 2: output"):
        list(TraceConfig(str(bad), rate=1.0).arrivals(0, "none", 9.0))


def test_prompts_are_those_of_the_requests(tmp_path: Path) -> None:
    head = "arrival_s,client,prompt_tokens,output_tokens,prompt\n"
    path = str(write(tmp_path / "t.csv", head + '0,a,1,1,"one, ""two"""\n5,a,2,1,three\n9,b,3,1,four\n'))
    assert list(TraceConfig(path).prompts()) == ['one, "two"', "three", "four"]
    assert list(TraceConfig(path, begin_s=4.0).prompts(requests=1)) == ["three"]
    assert list(TraceConfig(path).prompts(duration_s=6.0)) == ['one, "two"', "three"]
    with pytest.raises(DataError, match="row 1: prompt"):
        list(TraceConfig(str(write(tmp_path / "e.csv", head + "0,a,1,1,\n"))).prompts())
    with pytest.raises(DataError, match="one of prompt"):
        list(TraceConfig(str(write(tmp_path / "n.csv", OWN))).prompts())
    with pytest.raises(DataError, match="drawn"):
        TraceConfig(path, rate=1.0).prompts()
