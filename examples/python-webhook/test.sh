#!/usr/bin/env bash
# The unit tests: they need Python 3.11 or newer, and nothing of PyPI.
cd "$(dirname "$0")" && exec python3 -m unittest
