"""Report: write what was found, for people (report.md) and programs (metrics.json)."""

import json

import orchest

PAGE = """# Penguins

{birds} birds, {dropped} dropped for missing measurements.

| question | method | result |
|---|---|---|
| which species? | {k} nearest birds | {accuracy:.1%} right |
| {target}? | least squares | off by {rmse:.1f}, R² {r2:.3f} |
"""


def main() -> None:
    inputs = orchest.get_inputs()
    clean, species, body_mass = inputs["clean"], inputs["species"], inputs["body_mass"]
    metrics = {"birds": len(clean["birds"]), "dropped": clean["dropped"], **body_mass, **species}
    orchest.artifact("metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    page = PAGE.format(**metrics)
    orchest.artifact("report.md").write_text(page)
    print(page)


main()
