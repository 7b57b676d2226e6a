"""Report the package's size: files, lines, function lengths. Informs; never fails."""

import ast
from pathlib import Path
from statistics import quantiles

PACKAGE = Path(__file__).parent.parent / "earshot"


def function_lengths(source: str) -> list[int]:
    return [
        (node.end_lineno or node.lineno) - node.lineno + 1
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def main() -> None:
    sources = [path.read_text() for path in sorted(PACKAGE.rglob("*.py"))]
    lengths = [length for source in sources for length in function_lengths(source)]
    deciles = quantiles(lengths, n=10)
    lines = sum(source.count("\n") for source in sources)
    print(f"{len(sources)} files, {lines} lines; {len(lengths)} functions,", end=" ")
    print(f"lines p50 {deciles[4]:.0f}, p90 {deciles[8]:.0f}, max {max(lengths)}")


if __name__ == "__main__":
    main()
