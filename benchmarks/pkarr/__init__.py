"""The processes of the Pkarr benchmarks."""
