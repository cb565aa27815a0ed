from __future__ import annotations

import json
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mope.chat import estimate_tokens
from mope.data.load import iter_examples, read_examples
from mope.data.parquet import parquet_columns, parquet_rows
from mope.data.records import LengthData
from mope.errors import DataError
from mope.types import History, Request

ROWS = [
    {"prompt": "Name a colour", "response_tokens": 3, "model": "m", "max_tokens": 64},
    {"prompt": "In \u00fc\u4f60, \"quoted\",\nlines", "response_tokens": 40, "model": "m", "max_tokens": 8},
]  # fmt: skip
FORMS = ("a.parquet", "a.jsonl", "a.jsonl.gz", "a.json", "a.json.gz", "a.csv", "a.csv.gz")


def answers(data: LengthData) -> list[tuple[str, tuple[int, ...]]]:
    return [(example.request.prompt, example.lengths) for example in data.examples]


@pytest.mark.parametrize("name", FORMS)
def test_every_file_form_gives_the_same_examples(name: str, write: Any) -> None:
    data = read_examples([write(name, ROWS)])
    assert data.requests == [Request(row["prompt"], model="m", max_tokens=row["max_tokens"]) for row in ROWS]
    assert data.lengths.tolist() == [3.0, 40.0]
    assert data.sources == [name.partition(".json")[0].partition(".csv")[0].removesuffix(".parquet")] * 2
    assert not data.refused
    assert not data.notes


def test_a_saved_dataset_folder_is_read(tmp_path: Path) -> None:
    import datasets

    one = datasets.Dataset.from_list(ROWS[:1])
    datasets.DatasetDict(train=one, test=datasets.Dataset.from_list(ROWS[1:])).save_to_disk(
        str(tmp_path / "d")
    )
    one.save_to_disk(str(tmp_path / "single"))
    assert read_examples([tmp_path / "d"]).lengths.tolist() == [3.0, 40.0]
    assert read_examples([tmp_path / "single"]).sources == ["single"]


def test_a_hub_id_is_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = []

    def load(name: str, *, streaming: bool) -> Any:
        asked.append((name, streaming))
        return {"train": datasets.Dataset.from_list(ROWS).to_iterable_dataset()}

    monkeypatch.setattr(datasets, "load_dataset", load)
    data = read_examples(["owner/chats"], limit=1)
    assert set(asked) == {("owner/chats", True)}
    assert answers(data) == [("Name a colour", (3,))]
    assert data.sources == ["chats"]


def test_a_hub_that_cannot_be_reached_is_a_data_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def load(name: str, *, streaming: bool) -> Any:
        raise ConnectionError(f"no way to {name}")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(DataError, match="no way to owner/chats"):
        read_examples(["owner/chats"])


def test_sharegpt_conversations_give_one_example_an_answer(write: Any) -> None:
    turns = [("human", "first"), ("gpt", "a b c d" * 40), ("human", "second"), ("gpt", "yes, that is it")]
    row = {"id": "QWJhYvA_3", "conversations": [{"from": who, "value": text} for who, text in turns]}
    data = read_examples([write("s.json", [row])])
    first = estimate_tokens("a b c d" * 40)
    assert answers(data) == [("first", (first,)), ("second", (estimate_tokens("yes, that is it"),))]
    assert data.examples[0].request.history == History(turn=0, tokens=0)
    assert data.examples[1].request.history == History(
        turn=1,
        prompts=("first",),
        lengths=(first,),
        answer_tail=("a b c d" * 40)[-120:],
        tokens=first + estimate_tokens("first"),
    )
    assert data.groups == ["QWJhYvA"] * 2
    assert "estimated" in data.notes[0]


def test_lmsys_conversations_keep_model_and_id(write: Any) -> None:
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello there"}]
    row = {"conversation_id": "c9", "model": "vicuna", "turn": 1, "conversation": chat, "language": "English"}
    data = read_examples([write("l.parquet", [row])])
    assert answers(data) == [("hi", (2,))]
    assert (data.groups, data.models) == (["c9"], ["vicuna"])
    assert data.examples[0].request.history.turn == 0


LOGS = [
    {"messages": 1, "usage": {"completion_tokens": 9, "prompt_tokens": 5}, "max_tokens": 64, "model": "m"},
    {"request": {"messages": 1, "max_tokens": 64, "model": "m"},
     "response": {"usage": {"completion_tokens": 9, "prompt_tokens": 5},
                  "choices": [{"message": {"content": "x"}}]}},
    {"custom_id": "a", "body": {"messages": 1, "max_completion_tokens": 64, "model": "m"},
     "response": {"body": {"usage": {"completion_tokens": 9, "prompt_tokens": 5}, "model": "m-0613"}}},
]  # fmt: skip


@pytest.mark.parametrize("form", ["x.jsonl", "x.parquet"])
@pytest.mark.parametrize("log", LOGS)
def test_request_and_response_logs(log: dict[str, Any], form: str, write: Any) -> None:
    chat = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello there"},
        {"role": "user", "content": "and now?"},
    ]
    row = json.loads(json.dumps(log).replace('"messages": 1', f'"messages": {json.dumps(chat)}'))
    (example,) = read_examples([write(form, [row])]).examples
    request = example.request
    assert (request.prompt, example.lengths) == ("and now?", (9,))
    assert (request.model, request.max_tokens, request.prompt_tokens) == ("m", 64, 5)
    assert request.history == History(1, ("hi",), (2,), "hello there", 2 + 1 + 2)


def test_requests_of_one_growing_chat_stay_in_one_group(write: Any) -> None:
    chat = [{"role": "user", "content": "start"}, {"role": "assistant", "content": "ok"},
            {"role": "user", "content": "more"}]  # fmt: skip
    rows = [{"messages": chat[:1], "response_tokens": 1}, {"messages": chat, "response_tokens": 2},
            {"messages": [{"role": "user", "content": "other"}], "response_tokens": 2}]  # fmt: skip
    groups = read_examples([write("c.jsonl", rows)]).groups
    assert groups[0] == groups[1] != groups[2]


def test_prompts_are_grouped_by_id_or_by_what_they_say(write: Any) -> None:
    rows = [{"prompt": "p", "response_tokens": 1}, {"prompt": "p", "response_tokens": 2}]
    rows += [{"prompt": "q", "response_tokens": 1}, {"prompt": "p", "response_tokens": 1, "prompt_id": "i"}]
    groups = read_examples([write("g.jsonl", rows)]).groups
    assert groups[0] == groups[1] != groups[2]
    assert groups[3] == "i"


def test_messages_alone_are_conversations(write: Any) -> None:
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello there"}]
    assert answers(read_examples([write("c.jsonl", [{"messages": chat}])])) == [("hi", (2,))]
    both = [{"messages": chat, "response_tokens": 7}]
    assert answers(read_examples([write("d.jsonl", both)])) == [("hi", (7,))]


def test_messages_may_be_json_text_in_csv(write: Any) -> None:
    chat = json.dumps([{"role": "user", "content": "hi"}])
    assert answers(read_examples([write("c.csv", [{"messages": chat, "output_tokens": 5}])])) == [
        ("hi", (5,))
    ]


@pytest.mark.parametrize(
    ("columns", "length"),
    [
        ({"response_tokens": 1, "output_tokens": 2}, (1,)),
        ({"response_tokens_cl100k": 3, "response_tokens_llama2": 4}, (4,)),
        ({"response_tokens_cl100k": 3}, (3,)),
        ({"output_tokens_native": [5, 6, 7]}, (5, 6, 7)),
        ({"completion_tokens": 8}, (8,)),
        ({"response": "one two three four"}, (4,)),
        ({"response": "text", "response_tokens": 11}, (11,)),
    ],
)
def test_length_columns_by_preference(columns: dict[str, Any], length: tuple[int, ...], write: Any) -> None:
    assert read_examples([write("p.jsonl", [{"prompt": "p", **columns}])]).examples[0].lengths == length


def test_sizes_are_taken_in_the_unit_of_the_length(write: Any) -> None:
    row = {"prompt": "p", "prompt_tokens_cl100k": 10, "prompt_tokens_llama2": 12}
    llama = {"response_tokens_llama2": 1, "context_tokens_cl100k": 5, "context_tokens_llama2": 6}
    (example,) = read_examples([write("l.jsonl", [row | llama])]).examples
    assert (example.request.prompt_tokens, example.request.history.tokens) == (12, 6)
    (example,) = read_examples([write("g.jsonl", [row | {"response_tokens_cl100k": 1}])]).examples
    assert example.request.prompt_tokens == 10


def test_a_map_goes_before_what_is_recognised(write: Any) -> None:
    row = {"prompt": "wrong", "response_tokens": 1, "q": {"text": "right"}, "n": "12", "who": "m", "lim": 99}
    mapping = {"prompt": "q.text", "length": "n", "model": "who", "cap": "lim"}
    (example,) = read_examples([write("m.jsonl", [row])], mapping=mapping).examples
    assert (example.request.prompt, example.lengths, example.cap) == ("right", (12,), 99)
    assert example.request.model == "m"
    (example,) = read_examples(
        [write("n.jsonl", [row | {"reply": "a b"}])], mapping={"response": "reply"}
    ).examples
    assert example.lengths == (estimate_tokens("a b"),)


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ({"lenght": "n"}, "unknown fields.*lenght.*columns of.*q, n"),
        ({"length": "m"}, r"no column \['m'\].*q, n"),
    ],
)
def test_a_wrong_map_lists_the_columns(mapping: dict[str, str], said: str, write: Any) -> None:
    with pytest.raises(DataError, match=said):
        read_examples([write("m.jsonl", [{"q": "x", "n": 1}])], mapping=mapping)


@pytest.mark.parametrize(
    ("row", "said"),
    [({"q": "x", "response_tokens": 1}, "no prompt column.*q, response_tokens"),
     ({"prompt": "x", "n": 1}, "no length or response column.*prompt, n")],
)  # fmt: skip
def test_unknown_columns_are_named(row: dict[str, Any], said: str, write: Any) -> None:
    for name in ("u.jsonl", "u.csv", "u.parquet"):
        with pytest.raises(DataError, match=said):
            read_examples([write(name, [row])])


def test_a_prompt_named_by_the_user_is_not_passed_over_for_messages(write: Any) -> None:
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello there"}]
    with pytest.raises(DataError, match="no length or response column"):
        read_examples([write("m.jsonl", [{"q": "x", "messages": chat}])], mapping={"prompt": "q"})


def test_refused_rows_are_counted_by_reason(write: Any) -> None:
    good = {"prompt": "p", "response_tokens": 1}
    bad = [
        {"response_tokens": 1}, {"prompt": "", "response_tokens": 1}, {"prompt": "p"}, 7, ["p", 1],
        {"prompt": "p", "response_tokens": -1}, {"prompt": "p", "response_tokens": "x"},
        {"prompt": 5, "response_tokens": 1}, {"prompt": "p", "response_tokens": 1, "cap": "x"},
    ]  # fmt: skip
    path = write("r.jsonl", [good, *bad, good])
    path.write_bytes(path.read_bytes() + b'\n{"prompt": \n{"prompt": "\xff"}\n')
    data = read_examples([path])
    assert len(data) == 2
    assert data.refused == Counter({
        "no prompt": 1, "empty prompt": 1, "no length": 1, "row is not an object": 2, "length is negative": 1,
        "length is not a number": 1, "not text": 1, "cap is not a number": 1, "not JSON": 1, "not UTF-8": 1,
    })  # fmt: skip


def test_refused_messages_are_counted_by_reason(write: Any) -> None:
    def chat(*turns: tuple[str, Any]) -> dict[str, Any]:
        return {"conversations": [{"from": who, "value": text} for who, text in turns]}

    rows: list[Any] = [
        chat(
            ("gpt", "unasked"), ("human", "q"), ("gpt", "a"), ("gpt", "and another"), ("human", "left open")
        ),
        chat(("human", " "), ("gpt", "a")),
        chat(("stranger", "q")),
        chat(("human", 5)),
        chat(),
        {"conversations": "no list"},
        {"conversations": None},
        {"conversations": ["no object"]},
    ]
    data = read_examples([write("r.jsonl", rows)])
    assert answers(data) == [("q", (1,))]
    assert data.examples[0].request.history.lengths == (estimate_tokens("unasked"),)
    assert data.refused == Counter({
        "answer does not follow a user message": 2, "no answer after the last user message": 1,
        "empty prompt": 1, "unknown role": 1, "not text": 1, "no messages": 2, "messages are not a list": 1,
        "message is not an object": 1,
    })  # fmt: skip


def test_a_request_that_ends_with_an_answer_is_refused(write: Any) -> None:
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "x"}]
    rows = [{"messages": chat, "response": "y"}, {"messages": chat[:1], "response": "y"}]
    assert read_examples([write("r.jsonl", rows)]).refused == {"chat does not end with a user message": 1}


def test_csv_lines_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("prompt,response_tokens\nhi,3\nhi, there,3\nhi\n")
    data = read_examples([path])
    assert len(data) == 1
    assert data.refused == {"row has more cells than columns": 1, "no length": 1}


def test_no_usable_row_is_an_error_with_the_counts(write: Any) -> None:
    path = write("n.jsonl", [{"prompt": "", "response_tokens": 1}, {"prompt": "p", "response_tokens": -1}])
    with pytest.raises(DataError, match=r"1 x empty prompt.*1 x length is negative"):
        read_examples([path])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b"", "no rows"),
        ("a.jsonl", b"7\n8\n", "2 x row is not an object"),
        ("a.json", b"[]", "no rows"),
        ("a.json", b'[{"prompt": "p", "response_tokens": 1}, ', "cannot be read"),
        ("a.json", b'[{"prompt": "p", "response_tokens": 1}] 7', "text after the end"),
        ("a.csv", b"prompt,response_tokens\n", "no rows"),
        ("a.csv", b"\xff\xfe\x00", "cannot be read"),
        ("a.csv.gz", b"prompt\n", "cannot be read"),
        ("a.jsonl.gz", b"\x1f\x8b\x08\x00", "cannot be read"),
        ("a.parquet", b"PAR1", "cannot be read"),
        ("a.parquet", b"", "cannot be read"),
        ("a.txt", b"hi", "unknown format"),
    ],
)
def test_broken_files_are_data_errors(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_examples([tmp_path / name])


@pytest.mark.parametrize(
    "name", ["no/such/place", "missing.jsonl", "data/missing.jsonl", "", "a\0b", "x" * 5000]
)
def test_what_is_not_there_is_a_data_error(name: str) -> None:
    with pytest.raises(DataError):
        read_examples([name])


def test_no_paths_and_no_rows_asked_for_are_data_errors(write: Any) -> None:
    with pytest.raises(DataError, match="no data"):
        read_examples([])
    with pytest.raises(DataError, match="limit of 0"):
        read_examples([write("a.jsonl", ROWS)], limit=0)


def test_a_limit_stops_early_and_a_single_path_is_enough(write: Any) -> None:
    assert len(read_examples(str(write("a.jsonl", ROWS)), limit=1)) == 1


def test_long_texts_are_cut_and_sizes_kept(write: Any) -> None:
    long = "h" * 5000 + "t" * 5000
    row = {"prompt": long, "prompt_tokens": 2500, "response_tokens": 1}
    (example,) = read_examples([write("a.jsonl", [row])]).examples
    assert example.request.prompt == "h" * 4000 + "t" * 2000
    assert example.request.prompt_tokens == 2500


def test_long_texts_are_cut_in_histories_too(write: Any) -> None:
    turns = [("human", "h" * 9000), ("gpt", "a"), ("human", "q"), ("gpt", "b")]
    row = {"conversations": [{"from": who, "value": text} for who, text in turns]}
    last = read_examples([write("a.jsonl", [row])]).examples[-1].request.history
    assert last.prompts == ("h" * 6000,)
    assert last.tokens == estimate_tokens("h" * 9000) + 1


def test_only_the_columns_needed_are_read_from_parquet(write: Any) -> None:
    row = {"prompt": "p", "usage": {"completion_tokens": 1}, "embedding": [0.5] * 9, "a.b": 2}
    path = write("a.parquet", [row])
    assert set(parquet_columns(path)) == {"prompt", "usage.completion_tokens", "embedding", "a.b"}
    (found,) = parquet_rows(path, ["prompt", "usage.completion_tokens", "a.b"])
    assert found == {"prompt": "p", "usage": {"completion_tokens": 1}, "a.b": 2}


def test_lone_surrogates_and_nul_survive_reading(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text('{"prompt": "a\\ud800b\\u0000c", "response_tokens": 1}\n')
    data = read_examples([path])
    assert data.requests[0].prompt == "a\ufffdb\ufffdc"
    assert data.digest()


def test_lines_are_streamed(write: Any) -> None:
    path = write("big.jsonl", [{"prompt": f"{i} " + "x" * 5000, "response_tokens": i} for i in range(2000)])
    refused: Counter[str] = Counter()
    tracemalloc.start()
    total = sum(example.lengths[0] for example in iter_examples([path], refused=refused))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == sum(range(2000))
    assert peak < path.stat().st_size / 10
