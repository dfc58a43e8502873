"""What the methods are measured on: emoji scenes and what they are made of, and public benchmarks.

`benchmarks.open_dataset` opens any of them by name.
"""
