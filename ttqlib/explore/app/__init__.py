"""The app: any model's plan, seen, turned, compared and taken home. `notebooks/app` shows it."""
