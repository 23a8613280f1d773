"""The gateway's own key, certificate and the way it comes to them."""
