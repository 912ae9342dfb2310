"""The benchmarks that come with palmette; load them by name through :func:`palmette.benchmarks.catalog.load`."""
