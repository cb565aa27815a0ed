"""How good forecasts are: metrics with intervals, comparisons, slices, tables and plots."""
