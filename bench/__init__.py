"""What Clarion costs, as ratios against raw limits and a peer measured in the same run: ``make bench``."""
