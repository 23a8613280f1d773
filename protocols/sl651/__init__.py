"""SL 651-2014: rain gauges, river and reservoir stations to the centre."""
