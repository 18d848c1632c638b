"""Compare two results: paired differences of their F-scores, in numbers and in words."""
