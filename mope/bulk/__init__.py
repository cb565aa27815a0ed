"""Forecasts for whole files: streamed, in order, in several processes, resumed after a kill. Start at `run`."""
