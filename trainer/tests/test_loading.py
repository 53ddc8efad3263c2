"""No process holds more of a model than its share while it is loaded."""

from __future__ import annotations

from pathlib import Path

import loading

# 120 million parameters, most of them in layers, so that a share is far from the whole.
SHAPE = {
    **loading.BILLION, "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 8,
    "num_attention_heads": 16,
}  # fmt: skip


def test_a_process_holds_its_share_and_little_more(tmp_path: Path) -> None:
    model = loading.write(tmp_path / "model", SHAPE, file_size=100_000_000)
    found = loading.measure(model, 2, tmp_path)
    for one in found:
        # The embedding is the largest weight: a process holds a slice of it while it is read.
        assert one.peak - one.before < one.share + (100 << 20), found
    # A whole model would not have passed.
    assert sum(one.share for one in found) > 480_000_000
