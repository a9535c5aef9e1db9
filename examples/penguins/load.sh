#!/bin/bash
# Load: check that the data is what was published, and tell the next step where it is.
set -eu
(cd data && sha256sum --check SHA256SUMS)
birds=$(($(wc -l < data/penguins.csv) - 1))
echo "$birds birds in data/penguins.csv"
printf '{"file": "data/penguins.csv", "birds": %d}' "$birds" | python -m orchest output --name source
