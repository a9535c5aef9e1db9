"""Clean: keep the birds whose measurements are all there, as numbers."""

import csv
from pathlib import Path

import orchest

MEASURES = ("bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g")


def main() -> None:
    source = orchest.get_inputs()["source"]
    with Path(source["file"]).open(newline="") as file:
        birds = list(csv.DictReader(file))
    whole = [bird for bird in birds if all(bird[name] != "NA" for name in MEASURES)]
    for bird in whole:
        bird.update({name: float(bird[name]) for name in MEASURES})
    print(f"{len(whole)} of {len(birds)} birds have all measurements")
    orchest.output({"birds": whole, "dropped": len(birds) - len(whole)}, name="clean")


main()
