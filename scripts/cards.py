"""Render every card of model_cards/ again, or say which are stale.

    python scripts/cards.py [--check]

A card comes from its words, model_cards/NAME.toml, and its facts, model_cards/facts/NAME.json; those of the bundle
that ships lie in the bundle.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mope.export.cards import Card, read_words

ROOT = Path(__file__).parents[1]
HOME = ROOT / "model_cards"
SHIPPED = ROOT / "mope" / "assets" / "default" / "facts.json"


def cards() -> dict[str, Card]:
    """Every card as it should be, by name."""
    return {words.stem: _card(words) for words in sorted(HOME.glob("*.toml"))}


def _card(words: Path) -> Card:
    name = words.stem
    facts = SHIPPED if name == "shipped" else HOME / "facts" / f"{name}.json"
    plot = HOME / "img" / f"{name}-reliability.svg"
    return Card.of(facts, read_words(words), words.with_suffix(".md"), plot)


def main() -> None:
    """Read the arguments; write, or check."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a card is stale")
    check = parser.parse_args().check
    stale = {name: card.stale for name, card in cards().items()}
    for name, card in cards().items() if not check else ():
        card.write()
        print(f"{name}: {'written' if stale[name] else 'as it was'}")
    if check and any(stale.values()):
        raise SystemExit(f"stale: {', '.join(name for name, paths in stale.items() if paths)}")


if __name__ == "__main__":
    main()
