"""Draws sentences and names from the code and the documentation, for a reader to judge.

A reader who does not know the project reads each one once. A seed repeats a draw.
"""

import argparse
import random
import re
import subprocess
from pathlib import Path

COMMENT = re.compile(r"^\s*(?://[/!]?|#)\s(.*)$")
RUST_NAME = re.compile(r"\b(?:fn|struct|enum|trait|mod|const|static|type)\s+(?:mut\s+)?([A-Za-z_]\w+)")
PYTHON_NAME = re.compile(r"^\s*(?:def|class)\s+([A-Za-z_]\w+)|^([A-Z_]{3,})\s*(?::[^=]+)?=", re.M)
GENERATED = ("docs/frameworks/", "docs/openapi.json", "docs/access-matrix.md")


def files(suffix: str) -> list[Path]:
    """The committed files that people write."""
    listed = subprocess.check_output(["git", "ls-files", f"*{suffix}"], text=True).split()
    return [Path(name) for name in listed if not name.startswith(GENERATED)]


def paragraphs(text: str, pattern: re.Pattern[str]) -> list[str]:
    """The blocks of adjacent lines that match, without their markers."""
    blocks, block = [], []
    for line in [*text.splitlines(), ""]:
        if match := pattern.match(line):
            block.append(match[1])
        elif block:
            blocks.append(" ".join(block))
            block = []
    return blocks


def sentences(paragraph: str) -> list[str]:
    return [one for one in re.split(r"(?<=[.?!:])\s+(?=[A-Z])", paragraph) if len(one.split()) > 3]


def all_sentences() -> list[tuple[str, Path]]:
    prose = re.compile(r"^(?!\s*(?:[|#`<\-*]|\d+\.|$))\s*(.*)$")
    sources = [(".md", prose), (".rs", COMMENT), (".py", COMMENT), (".wit", COMMENT)]
    return [
        (sentence, path)
        for suffix, pattern in sources
        for path in files(suffix)
        for paragraph in paragraphs(path.read_text(), pattern)
        for sentence in sentences(paragraph)
    ]


def all_names() -> list[tuple[str, Path]]:
    return [
        (next(filter(None, match.groups())), path)
        for suffix, pattern in [(".rs", RUST_NAME), (".py", PYTHON_NAME)]
        for path in files(suffix)
        for match in pattern.finditer(path.read_text())
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    draw = random.Random(parser.parse_args().seed)
    for count, found in [(100, all_sentences()), (50, all_names())]:
        for text, path in draw.sample(sorted(set(found)), count):
            print(f"{text}  [{path}]")
        print()


if __name__ == "__main__":
    main()
