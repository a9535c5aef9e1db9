"""The platform's own catalogue: its 66 types, whatever else is declared in the program."""

from clarion.catalogue import catalogue
from orchest.events import builds, captures, jobs, projects, sessions

CATALOGUE = catalogue(
    module.__name__ for module in (projects, builds, sessions, jobs, captures)
)  # naming the modules here is what declares their types
