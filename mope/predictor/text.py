"""The one rule that turns a request into encoder tokens: head and tail of the prompt, then what came before."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mope.errors import BundleError, PromptError
from mope.predictor.config import TextConfig
from mope.types import Request

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Characters looked at per token kept: enough that the cut falls among them, few enough to bound the cost.
CHARS_PER_TOKEN = 16
MAX_PROMPT_CHARS = 8_000_000
SMALL_BATCH = 48  # texts, three a request
SPECIALS = ("[CLS]", "[SEP]")
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1f]")  # all but tab, line ends, vertical tab and form feed


def check_prompt(prompt: object) -> str:
    """The prompt as clean text; raises `PromptError` for what cannot be predicted."""
    if not isinstance(prompt, str):
        raise PromptError(f"a prompt of type {type(prompt).__name__}", "text (str)")
    if len(prompt) > MAX_PROMPT_CHARS:
        raise PromptError(
            f"a prompt of {len(prompt):,} characters",
            f"at most {MAX_PROMPT_CHARS:,}",
            "send the part the model will see",
        )
    head = prompt[:4096]
    if not head.strip() and not prompt.strip():
        raise PromptError("an empty prompt", "at least one visible character")
    controls = len(_CONTROLS.findall(head))
    if controls * 4 > len(head):
        raise PromptError(
            f"a prompt with {controls} control characters in its first {len(head)}", "text, not binary data"
        )
    return prompt


def cut(text: str, head: int, tail: int) -> str:
    """The characters of `text` that can still matter when `head` + `tail` tokens are kept."""
    front, back = head * CHARS_PER_TOKEN, tail * CHARS_PER_TOKEN
    if len(text) <= front + back:
        return text
    return text[:front] + " " + (text[-back:] if back else "")


def encode(
    requests: Sequence[Request], tokenizer: Tokenizer, config: TextConfig
) -> list[tuple[list[int], list[int]]]:
    """(token ids, segment ids) per request: `[CLS] prompt [SEP] earlier prompt [SEP] end of last answer [SEP]`.

    The second segment is left out where nothing came before. Ids are plain lists, unpadded.
    """
    texts: list[str] = []
    for request in requests:
        history = request.history
        texts += (
            cut(request.prompt, config.prompt_head, config.prompt_tail),
            cut(history.prompts[-1], config.earlier_prompt, 0) if history.prompts else "",
            history.answer_tail[-config.answer_tail * CHARS_PER_TOKEN :],
        )
    pieces = _tokens(_clean(texts), tokenizer)
    cls, sep = (_special(token, tokenizer) for token in SPECIALS)
    triples = zip(pieces[::3], pieces[1::3], pieces[2::3], strict=True)
    return [_join(prompt, earlier, answer, cls, sep, config) for prompt, earlier, answer in triples]


def _special(token: str, tokenizer: Tokenizer) -> int:
    found = tokenizer.token_to_id(token)
    if found is None:
        raise BundleError(f"a tokenizer without {token}", "a BERT tokenizer", "fetch the bundle again")
    return found


def _join(
    prompt: list[int], earlier: list[int], answer: list[int], cls: int, sep: int, config: TextConfig
) -> tuple[list[int], list[int]]:
    if len(prompt) > config.prompt_head + config.prompt_tail:
        prompt = prompt[: config.prompt_head] + (prompt[-config.prompt_tail :] if config.prompt_tail else [])
    first = [cls, *prompt, sep]
    earlier, answer = (
        earlier[: config.earlier_prompt],
        answer[-config.answer_tail :] if config.answer_tail else [],
    )
    second = [*earlier, sep, *answer, sep] if earlier or answer else []
    return first + second, [0] * len(first) + [1] * len(second)


def _tokens(texts: list[str], tokenizer: Tokenizer) -> list[list[int]]:
    """Token ids of each text. Waking the tokenizer's thread pool costs more than a few short texts do."""
    try:
        if len(texts) > SMALL_BATCH:
            return [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]
        return [tokenizer.encode(t, add_special_tokens=False).ids if t else [] for t in texts]
    except Exception as error:  # noqa: BLE001 - the library raises bare Exception
        raise BundleError(
            f"tokenizer.json cannot cut a text ({str(error)[:120]})",
            "a BERT tokenizer",
            "fetch the bundle again",
        ) from None


def _clean(texts: list[str]) -> list[str]:
    """Lone surrogates cannot be encoded as UTF-8; the tokenizer would refuse them."""
    return [t if t.isascii() else t.encode("utf-8", "replace").decode("utf-8") for t in texts]
