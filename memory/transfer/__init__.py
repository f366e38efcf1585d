"""Transfer: task memory as lossless JSONL, out and in."""
