"""Who a gateway is and what the broker lets it do."""
