"""From the broker to the commit: the only way in for what gateways say."""
