"""Side by side with other programs: `python -m benchmarks` lists what can be measured."""
