"""What the answers mean: pure functions over columns, ranges and positions."""
