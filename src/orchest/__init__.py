"""The Orchest platform: the first user of Clarion."""
